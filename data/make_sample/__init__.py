"""Small synthetic data sets in the official layouts.

Read in this order:

    scenes      pictures and motion
    observers   simulated gaze, and the maps made of it
    layouts     the four sets as files
"""

from pathlib import Path

from data.make_sample import layouts
from salema.files import atomic


def write(folder: str | Path, seed: int = 0, scale: float = 1.0) -> None:
    """Write SALICON, DHF1K, Hollywood-2 and UCF-sports under `folder`, all synthetic.

    The same seed gives the same bytes.

    Args:
        folder: A new or empty folder.
        seed: What the pictures and the gaze are drawn from.
        scale: Share of the images and clips of each set to write, in (0, 1]; at least
            two of SALICON and DHF1K a split, one of the others.

    Raises:
        SalemaError: The folder is not empty, or cannot be written.
        ValueError: `scale` is outside (0, 1].
    """
    if not 0 < scale <= 1:
        raise ValueError(f"scale must lie in (0, 1], got {scale}")
    folder = Path(folder).resolve()
    layouts.refuse_if_taken(folder)
    with atomic(folder) as part:
        layouts.salicon(part / "SALICON", seed, scale)
        layouts.dhf1k(part / "DHF1K", seed, scale)
        layouts.hollywood2(part / "Hollywood-2", seed, scale)
        layouts.ucf_sports(part / "UCF-sports", seed, scale)
