"""A little world: every vendor draws each concept as a disc of the concept's own colour, a bit of its own shade."""

import numpy as np

from sds_clip.demo.emoji.packages import VENDORS, Concept
from sds_clip.demo.emoji.pictures import SIDE_PX, Pictures
from sds_clip.demo.emoji.scenes import THINGS


def little_world(others: int = 60) -> Pictures:
    """The things of scenes and some further concepts, `word0` and so on."""
    names = [*THINGS, *(f"word {number * number}" for number in range(others))]
    concepts = [Concept(f"{place:X}", name, ("kept",)) for place, name in enumerate(names)]
    colours = np.random.default_rng(0).integers(40, 216, (len(names), 3))
    across = np.arange(SIDE_PX) - SIDE_PX / 2 + 0.5
    disc = np.hypot(*np.meshgrid(across, across)) < SIDE_PX / 2
    concept, vendor, pixels = [], [], []
    for place, colour in enumerate(colours):
        for number in range(len(VENDORS)):
            picture = np.zeros((SIDE_PX, SIDE_PX, 4), np.uint8)
            picture[disc] = *(colour + number), 255
            concept.append(place)
            vendor.append(number)
            pixels.append(picture)
    return Pictures(concepts, np.array(concept), np.array(vendor), np.stack(pixels))
