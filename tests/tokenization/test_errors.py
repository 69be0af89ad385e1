from tokenization.errors import (
    CorpusError,
    SchemaError,
    SourceError,
    UserfmError,
    VocabularyError,
    first_line,
    nearest,
    with_article,
)


def test_whatever_a_user_can_mend_is_caught_by_one_name() -> None:
    for error in (SchemaError, SourceError, CorpusError, VocabularyError):
        assert issubclass(error, UserfmError)


def test_an_unknown_name_is_answered_by_the_nearest_known_one() -> None:
    assert nearest("sale_value", ["quantity", "sales_value"]) == "did you mean 'sales_value'?"


def test_a_name_like_no_other_is_answered_by_all_of_them() -> None:
    assert nearest("zzz", ["quantity", "store"]) == "known are quantity, store"
    assert nearest("zzz", []) == "none is declared"


def test_what_an_error_says_is_part_of_a_sentence() -> None:
    assert first_line(ValueError("\n  no such column.\nTraceback")) == "no such column"
    assert first_line(ValueError("")) == first_line(ValueError("\n \n")) == "ValueError"


def test_words_have_the_article_that_is_spoken() -> None:
    assert [with_article(word) for word in ("id", "int", "category")] == ["an id", "an int", "a category"]
