"""A corpus of several parts: appended, joined, scanned, compacted, and whole whenever a process dies."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.corpus.corpus import Corpus, Format, append_corpus, compact, write_corpus
from tokenization.corpus.manifest import alone
from tokenization.corpus.opened import KEY, Onward
from tokenization.errors import CorpusError, VocabularyError
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
History = dict[str, list[int]]  # user → a number a token, which stands for time and group too


@pytest.fixture(scope="session")
def tokenizer(schema: EventSchema, log: pa.Table, items: pa.Table) -> Tokenizer:
    return Tokenizer.fit(schema, log, items)


def table(history: History, *without: str) -> pa.Table:
    """A token table of some of the columns, the users in the order given."""
    offsets = pa.array(np.cumsum([0, *map(len, history.values())]), pa.int32())
    flat = [number for numbers in history.values() for number in numbers]
    columns = {
        "time": pa.array(flat, pa.float64()),
        "group": pa.array(flat, pa.int32()),
        "product": pa.array(flat, pa.int32()),
        "quantity": pa.array(flat, pa.int32()),
        "quantity.value": pa.array([None if number % 3 == 0 else number / 2 for number in flat], pa.float32()),
        "events": pa.array([1] * len(flat), pa.int32()),
    }
    lists = {name: pa.ListArray.from_arrays(offsets, column) for name, column in columns.items()}
    whole = pa.table({"user_id": pa.array(list(history), pa.string()), **lists})
    return whole.drop_columns(list(without))


def whole(parts: Sequence[History]) -> History:
    """What all parts together say, in the order of ids."""
    ids = sorted({user for part in parts for user in part})
    return {user: [number for part in parts for number in part.get(user, [])] for user in ids}


def build(folder: Path, parts: Sequence[History], tokenizer: Tokenizer, format: Format = "parquet") -> Corpus:
    corpus = write_corpus(folder, [table(parts[0])], tokenizer, {}, format)
    for part in parts[1:]:
        corpus = append_corpus(folder, [table(part)], tokenizer, {})
    return corpus


def files(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of change of every file, by its path."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


PARTS: list[History] = [
    {"ann": [0, 1], "bob": [0], "dan": [0, 1, 2]},
    {"ann": [2], "cem": [0, 1]},
    {"bob": [1, 2], "cem": [2], "eve": [0]},
]

histories = st.lists(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.lists(st.integers(0, 99), min_size=1, max_size=5)),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_parts_read_as_one_row_a_user(format: Format, tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = build(tmp_path / "corpus", PARTS, tokenizer, format)
    expected = table(whole(PARTS))
    assert len(corpus.parts) == 3
    assert corpus.tokens().equals(expected)
    assert corpus.tokens(["group", "quantity.value"]).equals(expected.select(["group", "quantity.value"]))
    assert corpus.user_ids.to_pylist() == ["ann", "bob", "cem", "dan", "eve"]
    asked = corpus.users(pa.array(["cem", "nobody", "ann", "cem"]))
    assert asked.equals(expected.take(pa.array([2, 0, 2])))


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_an_append_writes_no_file_again(format: Format, tokenizer: Tokenizer, tmp_path: Path) -> None:
    build(tmp_path, PARTS[:1], tokenizer, format)
    for part in PARTS[1:]:
        before = files(tmp_path)
        append_corpus(tmp_path, [table(part)], tokenizer, {})
        after = files(tmp_path)
        assert {path for path in before if before[path] != after[path]} == {"corpus.json"}
        assert all("tokens/" in path for path in after.keys() - before.keys())


@given(histories)
@settings(max_examples=25)
def test_any_parts_are_joined_scanned_and_compacted_alike(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, parts: list[History]
) -> None:
    folder = tmp_path_factory.mktemp("parts") / "corpus"
    corpus = build(folder, parts, tokenizer)
    expected = table(whole(parts))
    assert corpus.tokens().equals(expected)
    for ranks in (1, 2, 3):
        tables = [piece for rank in range(ranks) for piece in corpus.scan(rank, ranks, batch_users=2)]
        assert all(piece.num_rows <= 2 for piece in tables)
        assert pa.concat_tables([expected.slice(0, 0), *tables]).equals(expected)
    backwards = expected["user_id"].combine_chunks()[::-1]
    assert corpus.users(backwards).equals(expected.take(pa.array(np.arange(expected.num_rows)[::-1])))
    packed = compact(folder)
    assert len(packed.parts) == 1
    assert packed.tokens().equals(expected)


def test_ids_are_text_once_a_part_has_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    numbers = table({"9": [0], "10": [0, 1]})
    numbers = numbers.set_column(0, "user_id", numbers["user_id"].cast(pa.int64()))
    write_corpus(tmp_path, [numbers], tokenizer, {})
    corpus = append_corpus(tmp_path, [table({"10": [2], "guest": [0]})], tokenizer, {})
    expected = table({"10": [0, 1, 2], "9": [0], "guest": [0]})
    assert corpus.tokens().equals(expected)
    assert corpus.users(pa.array([9, 10])).equals(expected.take(pa.array([1, 0])))
    assert pa.concat_tables(corpus.scan(batch_users=1)).equals(expected)


def test_tables_in_any_order_are_a_part_each(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pieces = [table({"dan": [0], "eve": [1]}), table({"ann": [2], "bob": [3]}), table({"cem": [4]}), table({})]
    corpus = write_corpus(tmp_path, pieces, tokenizer, {})
    assert [path.name for path in sorted((tmp_path / "tokens").iterdir())] == ["00000.parquet", "00001.parquet"]
    assert corpus.tokens().equals(table({"ann": [2], "bob": [3], "cem": [4], "dan": [0], "eve": [1]}))


def test_rows_in_any_order_are_written_in_order(tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, [table({"eve": [1, 2], "ann": [3], "cem": []})], tokenizer, {})
    assert corpus.tokens().equals(table({"ann": [3], "cem": [], "eve": [1, 2]}))


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_a_facet_that_a_part_lacks_is_absent(format: Format, tokenizer: Tokenizer, tmp_path: Path) -> None:
    bare = table({"ann": [1, 2], "bob": [3]}, "quantity", "quantity.value")
    write_corpus(tmp_path, [bare], tokenizer, {}, format)
    corpus = append_corpus(tmp_path, [table({"ann": [4]})], tokenizer, {})
    found = corpus.tokens(["quantity", "quantity.value", "product"])
    assert found["quantity"].to_pylist() == [[0, 0, 4], [0]]
    assert found["quantity.value"].to_pylist() == [[None, None, 2.0], [None]]
    assert found["product"].to_pylist() == [[1, 2, 4], [3]]
    assert corpus.tokens().column_names == table({}).column_names
    assert corpus.users(pa.array(["bob"]), ["quantity"]).to_pylist() == [{"quantity": [0]}]


def test_a_facet_that_no_part_has_yet_is_absent_and_any_other_name_is_an_error(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path, [table({"ann": [1, 2]}, "quantity", "quantity.value")], tokenizer, {})
    assert corpus.tokens(["store", "quantity.value"]).to_pylist() == [{"store": [0, 0], "quantity.value": [None, None]}]
    with pytest.raises(CorpusError, match="has no column 'produkt'; did you mean 'product'"):
        corpus.tokens(["produkt"])


def test_attributes_are_as_last_known(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def with_age(history: History, codes: list[int]) -> pa.Table:
        return table(history).append_column("user.age", pa.array(codes, pa.int32()))

    write_corpus(tmp_path, [with_age({"ann": [1], "bob": [1], "cem": [1]}, [4, 5, 0])], tokenizer, {})
    append_corpus(tmp_path, [table({"ann": [2], "dan": [1]})], tokenizer, {})
    corpus = append_corpus(tmp_path, [with_age({"bob": [2], "cem": [2]}, [7, 8])], tokenizer, {})
    assert corpus.tokens(["user.age"])["user.age"].to_pylist() == [4, 7, 8, 0]


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_ends_say_where_going_on_with_a_user_begins(
    at_once: int, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenization.corpus.corpus._ENDS", at_once)
    corpus = write_corpus(tmp_path, [table({"ann": [0, 0, 3], "bob": [0], "cem": []})], tokenizer, {})
    corpus = append_corpus(tmp_path, [table({"ann": [7, 9]})], tokenizer, {})
    ends = corpus.ends(pa.array(["nobody", "cem", "bob", "ann"]))
    assert ends.to_pylist() == [
        {"user_id": "bob", "first": 0.0, "last": 0.0, "groups": 1, "open": 0},
        {"user_id": "ann", "first": 0.0, "last": 9.0, "groups": 10, "open": 0},
    ]
    assert ends.schema.types == [pa.string(), pa.float64(), pa.float64(), pa.int64(), pa.int32()]
    assert corpus.ends(pa.array([], pa.string())).num_rows == 0


def test_what_was_refused_is_kept_of_every_append(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_corpus(tmp_path, [table(PARTS[0])], tokenizer, {}, quarantine=pa.table({"user": ["x"], "reason": ["why"]}))
    append_corpus(tmp_path, [table(PARTS[1])], tokenizer, {})
    refused = pa.table({"user": ["y"], "shelf": ["top"], "reason": ["late"]})
    corpus = append_corpus(tmp_path, [], tokenizer, {"events": 9}, refused)
    assert corpus.summary == {"events": 9}
    assert corpus.quarantine.select(["user", "reason", "shelf"]).to_pylist() == [
        {"user": "x", "reason": "why", "shelf": None},
        {"user": "y", "reason": "late", "shelf": "top"},
    ]
    assert corpus.tokens().equals(table(whole(PARTS[:2])))


def test_one_input_is_appended_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_corpus(tmp_path, [table(PARTS[0])], tokenizer, {})
    append_corpus(tmp_path, [table(PARTS[1])], tokenizer, {}, source="day 2")
    with pytest.raises(CorpusError, match="has this input already: it was appended before"):
        append_corpus(tmp_path, [table(PARTS[1])], tokenizer, {}, source="day 2")
    assert Corpus.open(tmp_path).manifest.appended == ("day 2",)
    assert Corpus.open(tmp_path).tokens().equals(table(whole(PARTS[:2])))


def test_two_processes_do_not_append_at_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_corpus(tmp_path, [table(PARTS[0])], tokenizer, {})
    with alone(tmp_path), pytest.raises(CorpusError, match="another process is writing to"):
        append_corpus(tmp_path, [table(PARTS[1])], tokenizer, {})
    assert append_corpus(tmp_path, [table(PARTS[1])], tokenizer, {}).tokens().num_rows == 4


@pytest.fixture
def grown(tokenizer: Tokenizer) -> Tokenizer:
    vocabularies = {**tokenizer.vocabularies, "store": tokenizer.vocabularies["store"].grow(pa.array(["s99"]))}
    return replace(tokenizer, vocabularies=vocabularies)


def test_a_grown_tokenizer_takes_the_place_of_the_one_it_grew_from(
    tokenizer: Tokenizer, grown: Tokenizer, tmp_path: Path
) -> None:
    before = write_corpus(tmp_path, [table(PARTS[0])], tokenizer, {})
    corpus = append_corpus(tmp_path, [table(PARTS[1])], grown, {})
    assert corpus.tokenizer.fingerprint == grown.fingerprint != tokenizer.fingerprint
    assert before.tokenizer.fingerprint == tokenizer.fingerprint  # whoever has the corpus open still reads it
    append_corpus(tmp_path, [table(PARTS[2])], grown, {})
    assert [path.name for path in (tmp_path / "tokenizers").iterdir()] == ["00001"]


def test_a_tokenizer_that_gives_other_codes_is_refused(tokenizer: Tokenizer, grown: Tokenizer, tmp_path: Path) -> None:
    write_corpus(tmp_path, [table(PARTS[0])], grown, {})
    with pytest.raises(CorpusError, match="this tokenizer gives 'store' other codes; append with the corpus's own"):
        append_corpus(tmp_path, [table(PARTS[1])], tokenizer, {})
    numbers = {name: type(codec)((0.5,)) for name, codec in grown.numbers.items()}
    other = replace(grown, numbers=numbers)
    with pytest.raises(CorpusError, match="this tokenizer bins 'quantity' otherwise"):
        append_corpus(tmp_path, [table(PARTS[1])], other, {})


DIES = """
    import os, signal, sys
    from pathlib import Path
    import pyarrow.parquet as pq
    import pyarrow as pa
    from tokenization.corpus import corpus
    from tokenization.corpus.opened import KEY, Onward
    from tokenization.corpus.manifest import Manifest
    from tokenization.tokenizer.tokenizer import Tokenizer

    folder, tokenizer, part, when = sys.argv[1:]
    die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    def tables():
        yield pq.read_table(part)
        if when == "while the part is written":
            die()

    if when == "before corpus.json is replaced":
        Manifest.write = die
    if when == "while corpus.json is replaced":
        Path.replace = die
    if when == "while compacting":
        Manifest.write = die
        corpus.compact(folder)
    onward = Onward([pa.table({"user": ["bob"], "time": [2.0]})], [pa.table({KEY: [7, 5]})])
    corpus.append_corpus(folder, tables(), Tokenizer.load(tokenizer), {"events": 7}, source="day 3", onward=onward)
"""
"""`Manifest.write` and `Path.replace` are where a crash would be hardest; there is no other way to be there."""


@pytest.mark.parametrize("format", ["parquet", "lance"])
@pytest.mark.parametrize(
    "when",
    [
        "while the part is written",
        "before corpus.json is replaced",
        "while corpus.json is replaced",
        "while compacting",
    ],
)
def test_a_process_killed_leaves_the_old_corpus_and_the_next_append_clears_up(
    when: str, format: Format, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    folder = tmp_path / "corpus"
    build(folder, PARTS[:2], tokenizer, format)
    before = files(folder)
    pq.write_table(table(PARTS[2]), tmp_path / "part.parquet")
    tokenizer.save(tmp_path / "tokenizer")
    told = [str(path) for path in (folder, tmp_path / "tokenizer", tmp_path / "part.parquet")]
    died = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DIES), *told, when], cwd=Path(__file__).parents[3], check=False
    )
    assert died.returncode == -signal.SIGKILL
    left = files(folder)
    assert before.items() <= left.items()
    assert left.keys() - before.keys()  # or the crash came too early to tell anything
    assert Corpus.open(folder).tokens().equals(table(whole(PARTS[:2])))
    onward = Onward([pa.table({"user": ["bob"], "time": [2.0]})], [pa.table({KEY: [7, 5]})])
    corpus = append_corpus(folder, [table(PARTS[2])], tokenizer, {}, source="day 3", onward=onward)
    assert corpus.tokens().equals(table(whole(PARTS)))
    assert corpus.has_keys(np.array([5, 6, 7, 5])).tolist() == [True, False, True, True]
    left_now = corpus.manifest
    named = {*left_now.parts, *left_now.quarantine, *left_now.keys, left_now.tokenizer, "corpus.json"}
    named |= set(filter(None, left_now.open))
    there = set(folder.glob("*/*")) | {p for p in folder.iterdir() if p.is_file()}
    assert {str(path.relative_to(folder)) for path in there} == named


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_a_corpus_of_the_first_format_opens_and_is_appended_to(
    format: Format, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(GOLDEN / f"corpus_1.{format}", folder)
    corpus = Corpus.open(folder)
    assert corpus.format == format
    assert corpus.summary == {"events": 6}
    assert corpus.quarantine["reason"].to_pylist() == ["user is missing"]
    tokens = corpus.tokens()
    assert tokens["user_id"].to_pylist() == ["ann", "bob", "cem"]
    assert tokens["quantity.value"].to_pylist() == [[2.0, None], [1.0], [5.0, 1.0]]
    assert tokens["product"].to_pylist() == [[3, 4], [2], [5, 3]]  # milk, tea, soap, rope
    assert corpus.ends(pa.array(["cem"]))["groups"].to_pylist() == [2]
    with pytest.raises(VocabularyError, match=r"has tokenizer format 1, .* tokenize the log again"):
        append_corpus(folder, [], tokenizer, {})
    # Tokens and tokenizer have formats of their own; with a tokenizer of today the old corpus goes on.
    shutil.rmtree(folder / "tokenizer")
    tokenizer.save(folder / "tokenizer")
    corpus = Corpus.open(folder)
    before = files(folder)
    later = append_corpus(folder, [tokens.slice(2)], corpus.tokenizer, {"events": 8})
    assert {path for path, file in before.items() if files(folder).get(path) != file} == {"corpus.json"}
    assert later.tokens()["quantity.value"].to_pylist() == [[2.0, None], [1.0], [5.0, 1.0, 5.0, 1.0]]
    expected = later.tokens()
    assert compact(folder).tokens().equals(expected)
    assert sorted(path.name for path in folder.iterdir()) == [
        "corpus.json",
        "quarantine.parquet",
        "tokenizer",
        "tokens",
    ]


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_ranks_read_each_row_group_once_and_hold_little(
    format: Format, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {f"u{number:05}": [number] for number in range(5_000)}
    write_corpus(tmp_path, [table(base)], tokenizer, {}, format)
    corpus = append_corpus(tmp_path, [table({user: [1] for user in list(base)[::7]})], tokenizer, {})
    shares = [list(corpus.scan(rank, 4, batch_users=100)) for rank in range(4)]
    sizes = [sum(piece.num_rows for piece in share) for share in shares]
    assert sum(sizes) == 5_000
    assert max(sizes) <= 5_000 / 4 + 2 * 256
    assert all(piece.num_rows <= 100 for share in shares for piece in share)
    assert pa.concat_tables(piece for share in shares for piece in share).equals(corpus.tokens())
    if format == "parquet":
        starts = np.cumsum([0, *sizes[:-1]])
        assert set(starts.tolist()) <= set(corpus.parts[0].borders.tolist())


def test_a_scan_holds_no_more_than_a_batch_and_a_row_group(tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = {f"u{number:05}": list(range(200)) for number in range(8_000)}
    corpus = write_corpus(tmp_path, [table(base)], tokenizer, {})
    del base
    idle = pa.total_allocated_bytes()
    most = 0

    def watched() -> Iterator[int]:
        nonlocal most
        for piece in corpus.scan(batch_users=64):
            most = max(most, pa.total_allocated_bytes() - idle)
            yield piece.num_rows

    assert sum(watched()) == 8_000
    everything = corpus.tokens().nbytes
    assert most < everything / 5
