"""A continued answer is its beginning and its rest: nothing lost, nothing twice, wherever it broke and however the rest comes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from talon.turn.seam import Seam, beginning

#: Blanks of all sorts are frequent: they are what is difficult.
TEXT = st.text(st.one_of(st.sampled_from(" \n\t\u00a0\u2003"), st.characters(exclude_categories=["Cs"])), min_size=1)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(places)]


@given(whole=TEXT, at=st.integers(0), cuts=st.lists(st.integers(0)))
@example(whole="a  \n b", at=4, cuts=[2, 3])
def test_a_model_that_goes_on_exactly_gives_the_whole_text(whole: str, at: int, cuts: list[int]) -> None:
    seen = whole[: at % (len(whole) + 1)]
    rest = whole[len(beginning(seen)) :]  # what the model says after what it was given
    seam = Seam(seen)
    assert seen + "".join(seam.join(piece) for piece in pieces(rest, cuts)) == whole


@given(whole=TEXT, breaks=st.lists(st.integers(1), max_size=6), cuts=st.lists(st.integers(0)))
def test_an_answer_that_breaks_again_and_again_is_whole_in_the_end(whole: str, breaks: list[int], cuts: list[int]) -> None:
    seen = ""
    for at in [*breaks, None]:
        rest = whole[len(beginning(seen)) :]
        seam = Seam(seen)
        came = rest if at is None else rest[: at % (len(rest) + 1)]
        seen += "".join(seam.join(piece) for piece in pieces(came, cuts))
        assert whole.startswith(seen)
    assert seen == whole


@given(seen=TEXT, rest=TEXT, cuts=st.lists(st.integers(0)))
def test_nothing_but_the_blanks_at_the_seam_is_ever_left_out(seen: str, rest: str, cuts: list[int]) -> None:
    seam = Seam(seen)
    joined = "".join(seam.join(piece) for piece in pieces(rest, cuts))
    assert rest.endswith(joined)
    left_out = rest[: len(rest) - len(joined)]
    assert seen[len(beginning(seen)) :].startswith(left_out)
    assert not left_out.strip()


def test_what_a_model_is_given_ends_in_no_blank() -> None:
    assert (beginning("It is "), beginning(" \n"), beginning("a\u00a0")) == ("It is", "", "a")
