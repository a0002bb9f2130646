"""The demo's catalogue: six themes, a dozen items each, some with a picture or a sound of their theme.

Wordless items are published without title and text: only their picture or sound can bring them to anyone. Their
titles are for the screen alone.
"""

import random
from collections.abc import Mapping, Sequence

from msgspec import Struct

from penchant.demo.pictures import picture
from penchant.demo.sounds import sound
from penchant.streams.events import Item, Media, MediaKind

__all__ = ["THEMES", "Entry", "Theme", "build_catalogue"]


class Entry(Struct, frozen=True):
    """An item as the demo writes it: `text` may be empty, and the title of a wordless one is not published."""

    title: str
    text: str = ""
    picture: bool = False
    sound: bool = False

    @property
    def wordless(self) -> bool:
        """Whether it consists of a picture or a sound alone."""
        return not self.text


class Theme(Struct, frozen=True):
    """Items that belong together."""

    name: str
    entries: Sequence[Entry]


THEMES: Sequence[Theme] = (
    Theme(
        "sea",
        (
            Entry("Harbour at slack water", "Boats lie still between ebb and flood, and the quay dries.", picture=True),
            Entry("The keeper's last lamp", "Forty years in a lighthouse, told by the woman who put it out."),
            Entry("Reading waves", "How sailors tell a distant storm from the period of its swell.", picture=True),
            Entry("Salt", "An evening in the pans, where sea water turns to crystals.", picture=True, sound=True),
            Entry("Tide tables for beginners", "Why high water comes fifty minutes later every day.", sound=True),
            Entry("Under the pier", "Barnacles, blennies and the other tenants of a seaside jetty.", picture=True),
            Entry("A dinghy for two", "Rigging, capsizing and righting a small sailing boat."),
            Entry("North Sea crossing", "Thirty hours on deck with oilskins and tea.", picture=True, sound=True),
            Entry("Surf from the dunes", sound=True),
            Entry("Shingle beach, evening", sound=True),
            Entry("Blue bay", picture=True),
            Entry("Two o'clock, offshore wind", picture=True),
        ),
    ),
    Theme(
        "mountains",
        (
            Entry("The hut above the clouds", "Soup, blankets and a warden who knows every path.", picture=True),
            Entry("Crossing a glacier", "Ropes, crevasses and why one starts at three in the morning.", picture=True),
            Entry("Marmots do not whistle for you", "What lives above the tree line, and how it winters."),
            Entry("Cowbells of the high pasture", "A summer with a herdsman and his forty cattle.", sound=True),
            Entry("Scree, ridge, summit", "A guide to grading alpine walks honestly.", picture=True),
            Entry("The map and the weather", "Planning a long hike across three passes.", picture=True),
            Entry("First on the north face", "A climb in hemp and hobnails, and those who waited below."),
            Entry("Alpine meadows in June", "Gentian, arnica and edelweiss in the order they flower.", picture=True),
            Entry("Bells coming down the valley", sound=True),
            Entry("Herd at the trough", sound=True),
            Entry("Three peaks", picture=True),
            Entry("Snow line", picture=True),
        ),
    ),
    Theme(
        "bread",
        (
            Entry("A starter from nothing", "Flour, water and nine days until a sourdough rises.", picture=True),
            Entry("Rye, dark and slow", "The dense loaf of the north, baked overnight.", picture=True),
            Entry("The village oven", "Once a week everyone brings dough, and gossip.", picture=True, sound=True),
            Entry("Kneading explained", "What gluten does, and how to tell when it is done."),
            Entry("Brioche on Sunday", "Butter, eggs and the patience that pastry wants.", picture=True),
            Entry("Crust", "Steam, heat and the crackle of a cooling baguette.", sound=True),
            Entry("Millers of the river", "Stone-ground wheat and the three mills still turning."),
            Entry("Flatbreads around the world", "Injera, naan, tortilla, and a hot pan for each.", picture=True),
            Entry("Crackling loaves", sound=True),
            Entry("Embers under the oven", sound=True),
            Entry("Round loaf on linen", picture=True),
            Entry("Four cuts", picture=True),
        ),
    ),
    Theme(
        "computers",
        (
            Entry("Eight bits were enough", "The home computers of the eighties and their games.", picture=True),
            Entry("Programming in 16 kilobytes", "Tricks of those who counted every byte.", picture=True),
            Entry("Tape loading error", "Why software came on cassettes, and what it sounded like.", sound=True),
            Entry("The beige machine", "A museum of desktop PCs that all still boot.", picture=True),
            Entry("Chiptunes", "Three square waves and a noise channel make an orchestra.", sound=True),
            Entry("BASIC for the bedroom", "Line numbers, GOTO and the listings typed in from magazines."),
            Entry("Green phosphor", "Terminals, teletypes and the first screens of text.", picture=True, sound=True),
            Entry("An assembler by hand", "Opcodes on squared paper, and a program that ran first time."),
            Entry("High-score jingle", sound=True),
            Entry("Modem handshake, dreamt", sound=True),
            Entry("Invaders, level one", picture=True),
            Entry("Memory dump", picture=True),
        ),
    ),
    Theme(
        "jazz",
        (
            Entry("Midnight at the cellar club", "A quartet plays its third set to eleven people.", picture=True),
            Entry("Comping", "What a pianist's left hand does behind a saxophone solo.", sound=True),
            Entry("The double bass, carried", "Stairs, trams and taxis: a life with a large instrument."),
            Entry("Brushes on a snare", "The quietest drummers in swing, and how they did it.", picture=True),
            Entry("Blue note", "The flattened third between major and minor.", picture=True, sound=True),
            Entry("Sleeves", "Record covers of the bebop years and their typographers.", picture=True),
            Entry("Standards", "Twelve songs every jazz trio is asked for.", picture=True, sound=True),
            Entry("Improvising with strangers", "A trumpeter on jam sessions and good manners."),
            Entry("Slow changes in F", sound=True),
            Entry("Ballad without a name", sound=True),
            Entry("Long-player, red", picture=True),
            Entry("Poster for a late set", picture=True),
        ),
    ),
    Theme(
        "birds",
        (
            Entry("Dawn chorus", "Who sings first in a spring wood, and for whom.", picture=True, sound=True),
            Entry("The blackbird next door", "A songbird's year between hedge and roof.", sound=True),
            Entry("Nest boxes that work", "Which hole lets a blue tit in and a sparrow out.", picture=True),
            Entry("Counting swifts", "Summer evenings with a notebook and a sore neck."),
            Entry("Owls after dark", "Tracks, pellets and calls of the forest at night.", picture=True),
            Entry("Migration", "How warblers cross a desert and find the same tree again.", picture=True),
            Entry("A hide by the pond", "Herons, kingfishers and the art of sitting still.", picture=True),
            Entry("Learning songs by ear", "Wren, robin, chiffchaff: a first ten.", sound=True),
            Entry("Wren, very close", sound=True),
            Entry("Two warblers", sound=True),
            Entry("Beech wood in May", picture=True),
            Entry("Leaves and wings", picture=True),
        ),
    ),
)


def build_catalogue() -> tuple[list[Item], Mapping[str, Entry]]:
    """All items as they are published, and by item id how each was written. The same every time."""
    items: list[Item] = []
    entries: dict[str, Entry] = {}
    for theme in THEMES:
        for number, entry in enumerate(theme.entries, 1):
            item_id = f"{theme.name}-{number:02}"
            rng = random.Random(item_id)
            media = []
            if entry.picture:
                media.append(Media(kind=MediaKind.IMAGE, data=picture(theme.name, rng)))
            if entry.sound:
                media.append(Media(kind=MediaKind.AUDIO, data=sound(theme.name, rng)))
            title = "" if entry.wordless else entry.title
            items.append(Item(item_id=item_id, title=title, text=entry.text, media=tuple(media)))
            entries[item_id] = entry
    return items, entries
