"""Prompts and completions that come as messages of a chat, ``{"role": ..., "content": ...}``.

A prompt is rendered by the tokenizer's own template, up to where the answer begins; a completion is
one message of the assistant, and what the template makes of it after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Messages = Sequence[Mapping[str, Any]]


class ChatError(ValueError):
    """Messages that cannot be used: what was ``expected``, and what was ``got``."""

    def __init__(self, expected: str, got: str) -> None:
        self.expected, self.got = expected, got
        super().__init__(f"expected {expected}, got {got}")


def is_chat(value: Any) -> bool:
    """Whether a prompt or completion is a list of messages."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and len(value) > 0
        and all(isinstance(message, Mapping) for message in value)
    )


def rendered(tokenizer: Any, messages: Messages, *, to_answer: bool) -> str:
    """The text of messages; with ``to_answer`` up to where the assistant begins.

    Raises
    ------
    ChatError
        If there is no chat template, or it does not take these messages.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise ChatError("a tokenizer with a chat template", "none")
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=to_answer
        )
    except Exception as error:  # of any kind: templates are programs
        said = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ChatError("messages that fit the chat template", f"its complaint: {said}") from None


def reply(tokenizer: Any, prompt: Messages, completion: Messages) -> str:
    """What the template writes for the assistant's message after the prompt.

    Raises
    ------
    ChatError
        If it is not one message of the assistant, or the template goes on otherwise than the prompt
        ended.
    """
    if [message.get("role") for message in completion] != ["assistant"]:
        roles = ", ".join(str(message.get("role")) for message in completion)
        raise ChatError("one message of the assistant", f"{roles or 'none'}")
    start = rendered(tokenizer, prompt, to_answer=True)
    whole = rendered(tokenizer, [*prompt, *completion], to_answer=False)
    if not whole.startswith(start):
        raise ChatError("a chat template that writes an answer after its prompt", "another")
    return whole[len(start) :]


def text_of(value: Any) -> Any:
    """What messages say, without who says it; anything else as it is."""
    return "\n\n".join(str(m.get("content")) for m in value) if is_chat(value) else value
