"""Text from outside: what somebody's code says, made fit for the journal and for the model."""

from __future__ import annotations


def cut(text: str, output_max: int) -> tuple[str, bool]:
    """-> (at most `output_max` characters of `text` that UTF-8 can carry, whether some were cut). The cut is marked at the end."""
    text = clean(text)
    if len(text) <= output_max:
        return text, False
    mark = f"\n[cut: {len(text)} characters, of which the first are shown]"
    return text[: max(0, output_max - len(mark))] + mark[: max(0, output_max)], True


def said(error: BaseException) -> str:
    """The message of an exception."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure itself
        return "(its message cannot be shown)"


def clean(text: str) -> str:
    """Without surrogates, which UTF-8 and so the journal cannot carry: pairs become what they mean, lone ones U+FFFD."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
