"""What fuzzing has found, and conversations as they should be, through the same targets: no fuzzer is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import answers
import pytest
import recorded
import streamed
import tapped
from client import COMPARED, Client
from receive import Receive, nothing_caught
from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
CONVERSATIONS = recorded.CONVERSATIONS | streamed.CONVERSATIONS
FOUND = [(name, path) for name in TARGETS for path in sorted((CORPUS / name).iterdir())]


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Any]]:
    made = {name: make() for name, make in TARGETS.items()}
    yield made
    for one in made.values():
        one.close()


@pytest.mark.parametrize(("name", "path"), FOUND, ids=[f"{name}-{path.name}" for name, path in FOUND])
def test_what_was_found_does_no_harm(name: str, path: Path, targets: dict[str, Any]) -> None:
    targets[name](path.read_bytes())


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_each_call_of_a_conversation_ends_as_it_must(conversation: Any, targets: dict[str, Any]) -> None:
    receive: Receive = targets["receive"]
    with nothing_caught(receive.loop):
        data = recorded.record(receive.loop, conversation)
    receive(data)


@pytest.mark.parametrize("client", tapped.CLIENTS.values(), ids=tapped.CLIENTS)
def test_what_a_real_client_has_sent_can_be_sent_again(client: Any, targets: dict[str, Any]) -> None:
    receive: Receive = targets["receive"]
    with nothing_caught(receive.loop):
        data = tapped.record(receive.loop, client)
    receive(data)


@pytest.mark.parametrize("answer", answers.ANSWERS.values(), ids=answers.ANSWERS)
def test_what_a_server_has_answered_can_be_answered_again(answer: Any, targets: dict[str, Any]) -> None:
    client: Client = targets["client"]
    client(answers.record(client, answer, COMPARED))
