"""What a number rests on, with the mark that stands beside it on the page."""

from typing import NamedTuple


class Evidence(NamedTuple):
    """`mark` is a letter, `meaning` a sentence of the legend."""

    mark: str
    name: str
    meaning: str


MEASURED = Evidence("●", "measured", "on this device, by running it")
PROJECTED = Evidence("◐", "projected", "from what was measured here to more steps, other lengths or longer contexts")
PREDICTED = Evidence("○", "predicted", "has a part that was not run, such as the seconds of answering")
PUBLISHED = Evidence("△", "published", "by others, on their machines; shown beside, never ranked")
LEGEND = (MEASURED, PROJECTED, PREDICTED, PUBLISHED)
