"""What names of columns hint at."""

from __future__ import annotations

import pytest

from tokenization.drafting import naming


@pytest.mark.parametrize("name", ["movieId", "movie_id", "movieid", "Movie ID", "MOVIE-ID"])
def test_a_name_is_its_words_however_it_is_written(name: str) -> None:
    assert naming.words(name) == ["movie", "id"]


@pytest.mark.parametrize(
    "name", ["user_id", "household_id", "customer", "uid", "visitorid", "userId", "CustomerKey", "account_number"]
)
def test_these_are_users(name: str) -> None:
    assert naming.likeness(name, naming.USER) == 3


@pytest.mark.parametrize("name", ["item_id", "product_id", "sku", "movieId", "asin", "article", "track id"])
def test_these_are_items(name: str) -> None:
    assert naming.likeness(name, naming.ITEM) == 3


def test_a_stem_among_others_hints_less() -> None:
    assert naming.likeness("product_category", naming.ITEM) == 1
    assert naming.likeness("parent_product_id", naming.ITEM) == 2
    assert naming.likeness("colour", naming.ITEM) == 0


def test_whole_names_of_times_go_before_words_in_names() -> None:
    order = [naming.place(name, naming.TIME) for name in ("timestamp", "created_at", "delivery_date")]
    assert None not in order
    assert order == sorted(order, key=lambda found: found or 0)
    assert naming.place("price", naming.TIME) is None


def test_facets_get_names_that_are_free() -> None:
    assert naming.facet_name("Item Price", ()) == "Item_Price"
    assert naming.facet_name("product_id", (), stem=True) == "product"
    assert naming.facet_name("id", (), stem=True) == "id"
    assert naming.facet_name("position", ()) == "position_shown"
    assert naming.facet_name("hour", ()) == "hour_2"
    assert naming.facet_name("store", {"store", "store_2"}) == "store_3"
    assert naming.facet_name("2nd", ()) == "_2nd"
    assert naming.facet_name("???", ()) == "facet"
    assert naming.facet_name("¼ größe", ()) == "größe"


def test_a_duration_counts_what_its_name_says() -> None:
    units = [naming.duration_unit(name) for name in ("dwell_ms", "watchMillis", "latency_us", "seconds_played")]
    assert units == ["ms", "ms", "us", "s"]
