"""FID and KID, by torch-fidelity."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from realcompo_core.bench.scores import Metric
from realcompo_core.errors import RealCompoError
from shapescenes.measuring import as_tensor

from .looking import read_picture

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SUBSETS = 1000  # pictures of one of KID's subsets, at most
BATCH = 32


class _Pictures(Dataset):
    def __init__(self, paths: Sequence[Path]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        """(3, H, W) bytes."""
        return ((as_tensor([read_picture(self._paths[index])])[0] + 1) * 127.5).round().to(torch.uint8)


def check_package() -> Callable[..., dict[str, float]]:
    """torch-fidelity's function. Raises RealCompoError where it is not installed."""
    try:
        from torch_fidelity import calculate_metrics
    except (ImportError, RuntimeError) as error:
        raise RealCompoError(
            f"--real needs the package torch-fidelity ({error}): pip install torch-fidelity"
        ) from error
    return calculate_metrics


def fid_and_kid(pictures: Sequence[Path], real: Path, weights: Path | None) -> tuple[Metric, ...]:
    """Of these pictures and all in the folder `real` (Heusel et al. 2017; Bińkowski et al. 2018).

    weights: of the Inception network; None fetches them once. Raises RealCompoError where that cannot be computed.
    """
    calculate_metrics = check_package()
    reals = sorted(path for path in real.rglob("*") if path.suffix.lower() in ENDINGS)
    smaller = min(len(pictures), len(reals))
    if smaller < 2:
        raise RealCompoError(
            f"--real {real} has {len(reals)} pictures, the run {len(pictures)}: both need two at least"
        )
    one_size = len({read_picture(path).size for path in (*pictures, *reals)}) == 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on the number of its workers
            found = calculate_metrics(
                input1=_Pictures(pictures),
                input2=_Pictures(reals),
                fid=True,
                kid=True,
                kid_subset_size=min(SUBSETS, smaller),
                batch_size=BATCH if one_size else 1,
                cuda=torch.cuda.is_available(),
                feature_extractor_weights_path=weights and str(weights),
                cache=False,
                verbose=False,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise RealCompoError(
            f"FID cannot be computed: {error}. Without a network name the Inception weights with --inception"
        ) from error
    fid, kid = found["frechet_inception_distance"], found["kernel_inception_distance_mean"]
    spread = found["kernel_inception_distance_std"]
    return (
        Metric(f"FID to {real.name}, {len(reals)} pictures", float(fid), len(pictures), lower=True),
        Metric(f"KID × 1000 to {real.name}", 1000 * float(kid), len(pictures), 1000 * float(spread), lower=True),
    )
