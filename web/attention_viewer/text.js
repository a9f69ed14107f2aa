// Numbers as the panel writes them.

export const percent = (share) => `${(100 * share).toFixed(0)} %`;
export const shortNumber = (value) => (value === 0 ? "0" : Number(value.toPrecision(2)).toString());
