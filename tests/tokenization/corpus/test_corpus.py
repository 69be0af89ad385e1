from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tokenization.corpus.corpus import Corpus, Format, write_corpus
from tokenization.errors import CorpusError
from tokenization.schema.event_schema import EventSchema
from tokenization.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(schema: EventSchema, log: pa.Table, items: pa.Table) -> Tokenizer:
    return Tokenizer.fit(schema, log, items)


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_what_was_written_is_read(format: Format, tokenizer: Tokenizer, log: pa.Table, tmp_path: Path) -> None:
    tokens = tokenizer.transform(log)
    refused = pa.table({"user": ["ann"], "reason": ["at is missing"]})
    write_corpus(tmp_path / "corpus", [tokens], tokenizer, {"events": 12}, format, refused)
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.tokens().equals(tokens)
    assert corpus.tokens(["user_id", "group"]).equals(tokens.select(["user_id", "group"]))
    assert corpus.user_ids.equals(tokens["user_id"].combine_chunks())
    assert corpus.summary == {"events": 12}
    assert corpus.split == tokenizer.split
    assert corpus.tokenizer.fingerprint == tokenizer.fingerprint
    assert corpus.quarantine.equals(refused)
    assert corpus.format == format


@pytest.mark.parametrize("format", ["parquet", "lance"])
def test_several_tables_are_one_corpus_and_users_are_found_in_it(
    format: Format, tokenizer: Tokenizer, log: pa.Table, tmp_path: Path
) -> None:
    tokens = tokenizer.transform(log)
    pieces = [tokens.slice(0, 2), tokens.slice(2)]
    corpus = write_corpus(tmp_path / "corpus", iter(pieces), tokenizer, {}, format)
    assert corpus.tokens().equals(tokens)
    found = corpus.users(pa.array(["cem", "nobody", "ann", "cem"]))
    assert found["user_id"].to_pylist() == ["cem", "ann", "cem"]
    assert found.slice(1, 1).to_pylist() == tokens.slice(0, 1).to_pylist()
    assert corpus.users(pa.array(["nobody"])).num_rows == 0
    assert corpus.users(pa.array([], pa.string())).num_rows == 0


def test_many_users_are_found_over_all_row_groups(tokenizer: Tokenizer, log: pa.Table, tmp_path: Path) -> None:
    copies = [log.set_column(0, "user", pa.array([f"{u}{i:03}" for u in log["user"].to_pylist()])) for i in range(300)]
    tokens = tokenizer.transform(pa.concat_tables(copies))
    corpus = write_corpus(tmp_path / "corpus", [tokens.slice(0, 333), tokens.slice(333)], tokenizer, {})
    wanted = ["cem299", "ann000", "bob123"]
    assert corpus.users(pa.array(wanted))["user_id"].to_pylist() == wanted


def test_a_corpus_is_replaced_whole(tokenizer: Tokenizer, log: pa.Table, tmp_path: Path) -> None:
    tokens = tokenizer.transform(log)
    write_corpus(tmp_path / "corpus", [tokens], tokenizer, {"run": 1}, "lance")
    corpus = write_corpus(tmp_path / "corpus", [tokens.slice(0, 1)], tokenizer, {"run": 2})
    assert corpus.summary == {"run": 2}
    assert corpus.tokens().num_rows == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus"]
    assert [p.name for p in (tmp_path / "corpus" / "tokens").iterdir()] == ["00000.parquet"]


def test_a_writer_that_fails_leaves_the_old_corpus(tokenizer: Tokenizer, log: pa.Table, tmp_path: Path) -> None:
    tokens = tokenizer.transform(log)
    write_corpus(tmp_path / "corpus", [tokens], tokenizer, {"run": 1})

    def failing() -> Iterator[pa.Table]:
        yield tokens.slice(0, 1)
        raise RuntimeError("no more events")

    with pytest.raises(RuntimeError, match="no more events"):
        write_corpus(tmp_path / "corpus", failing(), tokenizer, {"run": 2})
    assert Corpus.open(tmp_path / "corpus").summary == {"run": 1}
    assert Corpus.open(tmp_path / "corpus").tokens().equals(tokens)


def test_a_process_killed_while_writing_leaves_no_corpus_and_is_made_good_by_a_rerun(
    tokenizer: Tokenizer, log: pa.Table, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    script = f"""
        import os, signal
        from pathlib import Path
        import pyarrow as pa
        from tokenization.corpus.corpus import write_corpus
        from tokenization.tokenizer.tokenizer import Tokenizer

        tokenizer = Tokenizer.load({str(tmp_path / "tokenizer")!r})
        rows = [{{"user": "ann", "at": "2024-03-01", "sku": "tea"}}]

        def tables():
            from tokenization.sources.tables import from_rows
            yield tokenizer.transform(from_rows(rows, tokenizer.schema))
            os.kill(os.getpid(), signal.SIGKILL)

        write_corpus({str(tmp_path / "corpus")!r}, tables(), tokenizer, {{}})
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=Path(__file__).parents[3], check=False)
    assert died.returncode == -signal.SIGKILL
    with pytest.raises(CorpusError, match="is no corpus"):
        Corpus.open(tmp_path / "corpus")
    write_corpus(tmp_path / "corpus", [tokenizer.transform(log)], tokenizer, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "tokenizer"]


def test_between_its_two_renames_the_old_corpus_is_still_found(
    tokenizer: Tokenizer, log: pa.Table, tmp_path: Path
) -> None:
    tokens = tokenizer.transform(log)
    write_corpus(tmp_path / "corpus", [tokens], tokenizer, {"run": 1})
    (tmp_path / "corpus").rename(tmp_path / ".corpus.old")
    assert Corpus.open(tmp_path / "corpus").summary == {"run": 1}
    write_corpus(tmp_path / "corpus", [tokens], tokenizer, {"run": 2})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus"]


def test_what_is_no_corpus_is_never_overwritten(tokenizer: Tokenizer, log: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CorpusError, match="holds something that is no corpus; name another folder or empty it"):
        write_corpus(tmp_path, [tokenizer.transform(log)], tokenizer, {})
    with pytest.raises(CorpusError, match="holds something that is no corpus"):
        write_corpus(tmp_path / "thesis.tex", [tokenizer.transform(log)], tokenizer, {})
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written_is_named(tokenizer: Tokenizer, log: pa.Table, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CorpusError, match="can't be written: Permission denied"):
        write_corpus(tmp_path / "corpus", [tokenizer.transform(log)], tokenizer, {})


def test_a_folder_below_a_file_can_not_be_written(tokenizer: Tokenizer, log: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match="can't be written: Not a directory"):
        write_corpus(tmp_path / "file" / "corpus", [tokenizer.transform(log)], tokenizer, {})


def test_no_tables_make_no_corpus(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there are no tokens to write"):
        write_corpus(tmp_path / "corpus", [], tokenizer, {})


def test_what_is_no_corpus_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere is no corpus; make one with `userfm tokenize`"):
        Corpus.open(tmp_path / "nowhere")
    (tmp_path / "corpus.json").write_text('{"format": 9}')
    with pytest.raises(CorpusError, match="has corpus format 9, this userfm reads 1 to 3"):
        Corpus.open(tmp_path)


def test_lost_tokens_are_named(tokenizer: Tokenizer, log: pa.Table, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [tokenizer.transform(log)], tokenizer, {})
    (tmp_path / "corpus" / "tokens" / "00000.parquet").write_bytes(b"junk")
    corpus = Corpus.open(tmp_path / "corpus")
    with pytest.raises(CorpusError, match="its tokens can't be read"):
        corpus.tokens()
