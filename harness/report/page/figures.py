"""All pictures of a record, in the order of the page, and their files.

python -m harness report --figures pictures
"""

import re
from collections.abc import Sequence
from pathlib import Path

from harness.files import replace_atomically
from harness.report.page import devices, hours, learning, solving
from harness.report.page.canvas import Picture
from harness.report.page.judged import Judged

FAMILIES = (hours.pictures, learning.pictures, solving.pictures, devices.pictures)


def pictures(judged: Judged) -> list[Picture]:
    """Those for which the record has something to show."""
    return [picture for family in FAMILIES for picture in family(judged)]


def write_figures(drawn: Sequence[Picture], folder: Path) -> list[Path]:
    """Draws every picture as SVG and PNG into `folder`, made if needed; a file is replaced whole or not at all.

    Returns the paths. Raises UserError where the folder cannot be written or matplotlib is missing.
    """
    paths = []
    for picture in drawn:
        name = re.sub(r"[^a-z0-9-]", "", picture.name)
        for suffix, content in (("svg", picture.svg), ("png", picture.png)):
            paths.append(folder / f"{name}.{suffix}")
            replace_atomically(paths[-1], content, make_folder=True)
    return paths
