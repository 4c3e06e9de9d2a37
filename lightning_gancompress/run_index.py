"""The file README.txt of a run's folder, which says what the others are."""

from __future__ import annotations

from pathlib import Path

from lightning_gancompress.files import replacing
from lightning_gancompress.run_folder import INDEX, INDEX_HEADER, earlier_results

# in the order of interest: pattern, and what such files are
_MEANINGS = {
    "report.html": "everything on one page: numbers, pictures, kept channels, curves, settings",
    "generator*.pth": "the small generator of the last epoch: load_generator(FILE) in Python",
    "generator*.safetensors": "the same, with its description, in one file that runs no code",
    "generator*.json": "its description: class, widths, preprocessing, where it comes from",
    "generator*.onnx": "the same generator for ONNX Runtime",
    "generator*.xml": "the same generator for OpenVINO",
    "generator*.bin": "its weights",
    "generator*.pt2": "the same generator as a torch.export program",
    "speed*.json": "what profile --advice has measured, for the report",
    "test*/table*.md": "what was measured on the test images, teacher and student",
    "test*/results*.json": "the same for programs",
    "test*/grid*.png": "pictures of the test: source, target, teacher, student",
    "validate*/grid*.png": "pictures of a validation",
    "quality.md": "the smallest network that keeps model.quality, and what was tried to find it",
    "table.md": "several budgets side by side",
    "results.csv": "the same for programs",
    "plot.*": "quality against MACs",
    "search.*": "losses during the search",
    "budget_*": "the run of a larger budget, with files like these",
    "checkpoints/last.ckpt": "all of the run: fit --ckpt_path FILE goes on, test --ckpt_path FILE measures",
    "checkpoints/best.ckpt": "the epoch that was best on the validation images, likewise",
    "checkpoints/*.ckpt": "other checkpoints of the run",
    "checkpoints/*.onnx": "an exported checkpoint",
    "images/*.png": "pictures after each epoch",
    "logs/version_*/metrics.csv": "curves: search/... of the search, val/... of the network that is trained",
    "logs/version_*/hparams.yaml": "settings as the logger has them",
    "config.yaml": "all settings: fit --config FILE repeats the run",
    "config_*.yaml": "settings of earlier starts of this run",
    "predictions*/**/*.png": "translated pictures",
    "previous-*": "results of an earlier run in this folder",
    "cache": "tables that later runs reuse; may be removed",
}
_FEW = 6  # files of a kind that are named, such as the exports of a run


def write_index(folder: Path) -> None:
    """Write or renew README.txt in a run's folder; in a folder without results of a run do nothing.

    A file of that name that somebody else has written stays.
    """
    index = folder / INDEX
    foreign = index.is_file() and not index.read_text(errors="replace").startswith(INDEX_HEADER)
    if foreign or not earlier_results(folder):
        return
    told, lines = set[Path](), []
    for pattern, meaning in _MEANINGS.items():
        files = [path for path in sorted(folder.glob(pattern)) if path not in told]
        told |= {*files}
        if files:
            names = [str(path.relative_to(folder)) for path in files]
            named = ", ".join(names) if len(names) <= _FEW else f"{names[0]} and {len(names) - 1} more"
            lines.append(f"{named}\n    {meaning}\n")
    with replacing(index) as draft:
        draft.write_text(INDEX_HEADER + "\n" + "\n".join(lines))
