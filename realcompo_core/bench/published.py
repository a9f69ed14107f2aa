"""Figures that papers have published, and the setting that they hold for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .prompts import Prompt


@dataclass(frozen=True)
class Published:
    """`rows`: each method's figures by our metrics' names. The rest is the setting.

    `prompts`: how many, whose texts have the SHA-256 `digest`; None where it is not known here. `pictures`: of each.
    `models`: what looked at them.
    """

    source: str
    prompts: int
    digest: str | None
    pictures: int
    models: Mapping[str, str]
    rows: Mapping[str, Mapping[str, str]]

    def difference(self, prompts: Sequence[Prompt], pictures: int, models: Mapping[str, str]) -> str | None:
        """How a run's setting differs from this one; None where it is the same."""
        if len(prompts) != self.prompts:
            return f"{len(prompts)} prompts, not {self.prompts}"
        if self.digest is not None and digest_of(prompts) != self.digest:
            return "other prompts"
        if pictures != self.pictures:
            return f"{pictures} pictures of each prompt, not {self.pictures}"
        for what, name in self.models.items():
            if models.get(what) != name:
                return f"{what} {models.get(what, 'none')}, not {name}"
        return None


def digest_of(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of the texts, a line each."""
    return hashlib.sha256("\n".join(prompt.text for prompt in prompts).encode()).hexdigest()


def _table(names: Sequence[str], rows: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Rows from cells with two spaces between them, in the order of the names."""
    return {method: dict(zip(names, cells.split("  "), strict=True)) for method, cells in rows.items()}


TOKENCOMPOSE = "Wang et al. 2024 (TokenCompose), table 1"
OWLV2 = {"detector": "google/owlv2-large-patch14-ensemble"}
MG = ("MG2", "MG3", "MG4", "MG5")
GENEVAL_TASKS = ("overall", "single object", "two object", "counting", "colors", "position", "color attr")
VISOR_METRICS = ("OA", "VISOR uncond", "VISOR cond", "VISOR-1", "VISOR-2", "VISOR-3", "VISOR-4")

MULTIGEN_COCO = Published(
    TOKENCOMPOSE,
    1000,
    "c5ed534e64fc669bc5278d6dc55aa8fd713b51eb7e95a6ba3e3c4e796b073126",
    10,
    OWLV2,
    _table(
        MG,
        {
            "SD 1.4": "90.72 ± 1.33  50.74 ± 0.89  11.68 ± 0.45  0.88 ± 0.21",
            "Composable Diffusion": "63.33 ± 0.59  21.87 ± 1.01  3.25 ± 0.45  0.23 ± 0.18",
            "Layout Guidance": "93.22 ± 0.69  60.15 ± 1.58  19.49 ± 0.88  2.27 ± 0.44",
            "Structured Diffusion": "90.40 ± 1.06  48.64 ± 1.32  10.71 ± 0.92  0.68 ± 0.25",
            "Attend-and-Excite": "93.64 ± 0.76  65.10 ± 1.24  28.01 ± 0.90  6.01 ± 0.61",
            "TokenCompose": "98.08 ± 0.40  76.16 ± 1.04  28.81 ± 0.95  3.28 ± 0.48",
        },
    ),
)
MULTIGEN_ADE20K = Published(
    TOKENCOMPOSE,
    1000,
    "0ae7480e88e00483c54b174da607ba8ebe5f61af13b83dc4eefb4a9a628f8390",
    10,
    OWLV2,
    _table(
        MG,
        {
            "SD 1.4": "89.81 ± 0.40  53.96 ± 1.14  16.52 ± 1.13  1.89 ± 0.34",
            "Composable Diffusion": "69.61 ± 0.99  29.96 ± 0.84  6.89 ± 0.38  0.73 ± 0.22",
            "Layout Guidance": "96.05 ± 0.34  67.83 ± 0.90  21.93 ± 1.34  2.35 ± 0.41",
            "Structured Diffusion": "89.25 ± 0.72  53.05 ± 1.20  15.76 ± 0.86  1.74 ± 0.49",
            "Attend-and-Excite": "91.74 ± 0.49  62.51 ± 0.94  26.12 ± 0.78  5.89 ± 0.40",
            "TokenCompose": "97.75 ± 0.34  76.93 ± 1.09  33.92 ± 1.47  6.21 ± 0.62",
        },
    ),
)
VISOR = Published(
    "Gokhale et al. 2022 (VISOR), table 2; OA of TokenCompose: Wang et al. 2024, table 1",
    25280,
    "e19d1198c1a9bf37f09c3825b35015873df1f9cd3375759aeabeaec537e35333",
    4,
    {"detector": "google/owlvit-base-patch32"},
    _table(
        VISOR_METRICS,
        {
            "GLIDE": "3.36  1.98  59.06  6.72  1.02  0.17  0.03",
            "DALL-E mini": "27.10  16.17  59.67  38.31  17.50  6.89  1.96",
            "CogView2": "18.47  12.17  65.89  33.47  11.43  3.22  0.57",
            "DALL-E v2": "63.93  37.89  59.27  73.59  47.23  23.26  7.49",
            "SD 1.4": "29.86  18.81  62.98  46.60  20.11  6.89  1.63",
            "SD 1.4 + CDM": "23.27  14.99  64.41  39.44  14.56  4.84  1.12",
            "SD 2.1": "47.83  30.25  63.24  64.42  35.74  16.13  4.70",
        },
    )
    | {"TokenCompose": {"OA": "52.15"}},
)
GENEVAL = Published(
    "Ghosh et al. 2023 (GenEval), table 2",
    553,
    "4de60dfc3c29f9d3db69ec45cf03a964627c2d82f2c224c3f75645e137f7126b",
    4,
    {"detector": "facebook/mask2former-swin-small-coco-instance", "clip": "openai/clip-vit-large-patch14"},
    _table(
        GENEVAL_TASKS,
        {
            "SD 1.5": "43  97  38  35  76  4  6",
            "SD 2.1": "50  98  51  44  85  7  17",
            "SDXL": "55  98  74  39  85  15  23",
            "IF-XL": "61  97  74  66  81  13  35",
        },
    ),
)
# Wang et al. 2024, table 5: scores of SD 1.4, of it fine-tuned without and with TokenCompose's losses. Table 7: object
# accuracy, by OWLv2. Those of the categories spatial and complex rest on UniDet, which is in no library.
_T2I = {
    "color": ("BLIP-VQA", "0.3765  0.4647  0.5055", "47.40  55.70  62.92"),
    "shape": ("BLIP-VQA", "0.3576  0.4598  0.4852", "25.33  28.49  32.95"),
    "texture": ("BLIP-VQA", "0.4642  0.5209  0.5881", "15.27  18.95  25.59"),
    "non_spatial": ("CLIPScore", "0.3102  0.3172  0.3173", "45.10  47.33  48.94"),
}
_T2I_DIGESTS = {
    "color": "c735840f3de605316c72203af5e32ef88dc95a541333eaef1f42d6e155647651",
    "shape": "bf557e22414dbc69b118111cdf0242f6bdec5e27a854d7a90436207b1e806d87",
    "texture": "fa60c83f215a8753a3795d1aceba0a1576777ac816c9f1a617de8d7c1e21342b",
    "non_spatial": "2b9c2b1a26350308f5e2732f70c2f807f1cbaec241220ec709a4ea3eb34c2e98",
}
_T2I_MODELS = {
    "BLIP-VQA": {"vqa": "Salesforce/blip-vqa-capfilt-large"},
    "CLIPScore": {"clip": "openai/clip-vit-base-patch32"},
}
_T2I_METHODS = ("SD 1.4", "SD 1.4, fine-tuned", "TokenCompose")
T2I_COMPBENCH = {
    category: Published(
        "Wang et al. 2024 (TokenCompose), tables 5 and 7",
        300,
        _T2I_DIGESTS[category],
        10,
        _T2I_MODELS[metric],
        {
            method: {metric: score, "object accuracy": accuracy}
            for method, score, accuracy in zip(_T2I_METHODS, scores.split("  "), accuracies.split("  "), strict=True)
        },
    )
    for category, (metric, scores, accuracies) in _T2I.items()
}


def published_for(benchmark: str, category: str | None) -> Published | None:
    """What has been published on a benchmark; None for nothing."""
    if benchmark == "t2i-compbench":
        return T2I_COMPBENCH.get(category or "")
    known = {"multigen-coco": MULTIGEN_COCO, "multigen-ade20k": MULTIGEN_ADE20K, "visor": VISOR, "geneval": GENEVAL}
    return known.get(benchmark)
