"""What names of columns hint at. They are hints only: inference.py asks the values before it believes one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenization.schema.event_schema import RESERVED


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


USER = _set(
    "user users customer household member client visitor account person subscriber player viewer reader buyer shopper "
    "guest patient student profile uid consumer listener traveller traveler cardholder  cookie"
)
ITEM = _set(
    "item product article sku movie film song track book video content asin ad listing post game show episode course "
    "recipe job hotel restaurant venue artist album news story offer good goods merchandise creative page isbn "
)
THING = ITEM | _set("coupon campaign voucher promotion promo banner message notification email push")
TIME = (
    "timestamp", "time", "ts", "event_time", "event_timestamp", "datetime", "date_time", "date", "created_at",
    "occurred_at", "at", "day", "created", "unix_timestamp", "event_date", "moment", "when",
)  # fmt: skip
POSITION = _set("position order index idx seq sequence step ordinal number event_number")
GROUP = (
    "basket", "order", "receipt", "transaction", "invoice", "cart", "checkout", "bag", "request", "impression", "trip",
    "visit", "session", "group",
)  # fmt: skip
AT_ONCE = frozenset(GROUP[:10])
"""Groups that are one moment by their nature; a visit or a session is one only where its times say so."""
ACTION = _set(
    "action event event_type eventtype event_name eventname type behavior behaviour behavior_type activity interaction "
    "interaction_type verb"
)
VERBS = _set(
    "view click buy purchase cart add_to_cart addtocart play like dislike rate rating impression order redeem skip "
    "listen watch share save search install open return remove visit read pv fav wish transaction download follow "
    "comment mailing convert bookmark"
)
CONTEXT = _set(
    "device surface platform os browser locale lang language country city region store shop query search channel app "
    "referrer referer site placement network carrier timezone till source medium utm version agent weather location "
    "zip postcode screen viewport branch terminal client"
)
NUMBER = _set(
    "price amount quantity qty count num total value rating score stars discount weight percent pct ratio revenue cost "
    "sales spend points age size position rank slot completion progress disc height margin tax tip units"
)
DURATION = _set(
    "duration dwell elapsed seconds secs sec ms msec millis milliseconds us latency watch playtime runtime spent "
    "listened watched"
)
RELEASED = _set(
    "released release published publication publish launched launch premiere premiered introduced available listed"
)
IDENTITY = _set("id ids key no nr number code hash uuid guid num upc ean")
ROW = _set("id uuid guid event_id eventid row_id rowid event_uuid line_id record_id log_id message_id")
_JOINED = frozenset(f"{stem}id" for stem in (*USER, *ITEM, *GROUP, "event", "row", "store", "device", "shop"))


def words(name: str) -> list[str]:
    """`movieId`, `movie_id`, `movieid` and `Movie ID` → ["movie", "id"]."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    said = [word.lower() for word in re.split(r"[\W_]+", split) if word]
    return [part for word in said for part in ((word[:-2], "id") if word in _JOINED else (word,))]


def likeness(name: str, stems: Iterable[str]) -> int:
    """3: the name is one of the stems, identity words aside. 2: a stem with an identity word and others. 1: a stem
    stands in it. 0: none does."""
    known, said = frozenset(stems), words(name)
    bare = [word for word in said if word not in IDENTITY] or said
    if bare and ("_".join(bare) in known or "".join(bare) in known or "_".join(said) in known):
        return 3
    if not known.intersection(bare):
        return 0
    return 2 if IDENTITY.intersection(said) else 1


def place(name: str, ranked: tuple[str, ...]) -> int | None:
    """Which of the names it is, the likeliest first; one of its words counts after all whole names."""
    said = words(name)
    whole = "_".join(said)
    if whole in ranked:
        return ranked.index(whole)
    bare = [word for word in said if word not in IDENTITY]
    found = [ranked.index(word) for word in bare if word in ranked]
    return len(ranked) + min(found) if found else None


def is_identity(name: str) -> bool:
    """Whether the name says that values are ids or codes of something."""
    said = words(name)
    return bool(said) and said[-1] in IDENTITY


def duration_unit(name: str) -> str:
    """What a duration counts, by its name."""
    said = frozenset(words(name))
    if said & {"ms", "msec", "millis", "milliseconds"}:
        return "ms"
    return "us" if said & {"us", "micros"} else "s"


def facet_name(column: str, taken: Iterable[str], stem: bool = False) -> str:
    """A name for a column that a facet may have and no other has. stem: without the words that say it is an id."""
    said = [word for word in words(column) if word not in IDENTITY] if stem else []
    name = "_".join(said) or column
    name = "".join(letter if f"_{letter}".isidentifier() else "_" for letter in name).strip("_") or "facet"
    name = name if name.isidentifier() else f"_{name}"
    used = {*taken, *RESERVED, "action"}
    again, number = name, 2
    while again in used:
        again = f"{name}_shown" if name == "position" and number == 2 else f"{name}_{number}"
        number += 1
    return again
