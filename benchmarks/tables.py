"""Write the ShapeScenes table into `RESULTS.md` and draw its plot: `python benchmarks/tables.py`."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLUMNS = (
    ("accuracy", "3–4 objects"),
    ("accuracy_all", "all"),
    ("accuracy_attribute", "attribute"),
    ("accuracy_spatial", "spatial"),
    ("accuracy_count", "count"),
    ("accuracy_complex", "complex"),
    ("box_hits", "box hits"),
    ("realism", "realism ↓"),
)


def cell(row: dict, name: str) -> str:
    digits = 2 if name == "realism" else 3
    spread = row.get(f"{name}_std")
    return f"{row[name]:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None else "")


def shapescenes_table(document: dict) -> str:
    heads = ["row", "images", *(head for _, head in COLUMNS), "passes", "backward", "time"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in document["rows"]:
        values = [cell(row, name) for name, _ in COLUMNS]
        tail = [
            f"{row['passes']:.2f}",
            f"{row['backward']:.2f}",
            f"{row['time_ratio']:.2f}" if "time_ratio" in row else "–",
        ]
        lines.append("| " + " | ".join([row["name"], str(row["images"]), *values, *tail]) + " |")
    return "\n".join(lines)


def draw_tradeoff(document: dict, path: Path) -> None:
    """Accuracy over realism: the curve of constant mixes, other static weights, and the systems."""
    rows = {row["name"]: row for row in document["rows"]}
    mixes = ["text_to_image", *(f"mix_{n / 10}" for n in range(1, 10)), "layout_branch"]
    figure = Figure(figsize=(7, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots()

    def points(names: list[str], **style) -> None:
        chosen = [rows[name] for name in names if name in rows]
        if not chosen:
            return
        axes.errorbar(
            [row["realism"] for row in chosen],
            [row["accuracy"] for row in chosen],
            xerr=[row["realism_std"] or 0 for row in chosen],
            yerr=[row["accuracy_std"] or 0 for row in chosen],
            capsize=2,
            **style,
        )

    points(mixes, marker="o", color="#8a8f98", label="constant mixes")
    points(["region_best"], marker="^", linestyle="", color="#5b6068", label="best static regions")
    points(["schedule_best"], marker="v", linestyle="", color="#5b6068", label="best static schedule")
    points(["official"], marker="s", linestyle="", color="#c2571a", label="official settings")
    points(["layout_guidance"], marker="P", linestyle="", color="#7b3fa0", label="Layout Guidance alone")
    points(["v3_balanced"], marker="X", linestyle="", color="#7b3fa0", label="balanced with Layout Guidance (v3)")
    points(["segmentation_branch"], marker="h", linestyle="", color="#b8860b", label="segmentation ControlNet alone")
    points(["segmentation_balanced"], marker="H", linestyle="", color="#8a6d00", label="balanced with it")
    points(["lookahead"], marker="D", linestyle="", color="#1f6fb2", label="balanced, lookahead")
    points(["one_pass"], marker="*", markersize=13, linestyle="", color="#0f8a5f", label="balanced, one pass")
    for name, text, side in (
        ("text_to_image", "text-to-image alone", "left"),
        ("layout_branch", "layout branch alone", "right"),
    ):
        place, away = (rows[name]["realism"], rows[name]["accuracy"]), (-8, 32) if side == "left" else (-6, 14)
        axes.annotate(text, place, away, textcoords="offset points", size=8, ha=side)
    axes.set_xlabel("distance to real scenes (Fréchet; further left is more realistic)")
    axes.set_ylabel("exact scenes, 3 and 4 objects")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=7, loc="lower right", ncols=2)
    figure.savefig(path)


def setting(document: dict) -> str:
    options = ", ".join(f"{key}={value}" for key, value in document["options"].items() if key != "balance")
    versions = ", ".join(f"{key} {value}" for key, value in document["versions"].items())
    return (
        f"Command: `{document['command']}`. {document['prompts']} prompts; {options}; {versions}.\n"
        f"Balance: `{document['options']['balance']}`.\n"
        f"Distance of other real scenes to the real ones: {document['realism_of_real_scenes']}."
    )


def main() -> None:
    document = json.loads((HERE / "results" / "shapescenes.json").read_text())
    draw_tradeoff(document, HERE / "results" / "tradeoff.png")
    page = HERE / "RESULTS.md"
    before, rest = page.read_text().split("<!-- table -->")
    _, after = rest.split("<!-- end of table -->")
    table = f"\n{setting(document)}\n\n{shapescenes_table(document)}\n"
    page.write_text(f"{before}<!-- table -->{table}<!-- end of table -->{after}")


if __name__ == "__main__":
    main()
