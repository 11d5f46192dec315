"""What was sent, and what became of it: for people in a sentence, for programs as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.messages import Body, Pay, Rejected
from ops.acting.asking import Asked
from ops.acting.books import Booked
from ops.acting.ending import Ending, Outcome
from ops.acting.past import Past
from ops.output import Exit, say, tell_json
from ops.story.standing import Phase, Standing


def content(body: Body) -> dict[str, Any]:
    """A body as it is sent: what was left out stays out."""
    return body.model_dump(mode="json", exclude_none=True)


def document(asked: Asked, *, content_from: str = "you") -> dict[str, Any]:
    """What was sent, and what became of it, for programs. `content_from`: who knew what to send."""
    document: dict[str, Any] = {
        "type": asked.type,
        "id": asked.command.key,
        "command": content(asked.command),
        "trace_id": asked.traceparent.split("-")[1],
        "waited": asked.outcome is not None,
    }
    if asked.outcome is not None:
        document |= {"told_by": "services", "content_from": content_from, "seconds": round(asked.seconds, 3)}
        document |= told(asked.outcome)
    return document


def told(outcome: Outcome) -> dict[str, Any]:
    """An outcome for programs."""
    document: dict[str, Any] = {"ending": outcome.ending.value, "heard": outcome.heard}
    if outcome.failed is not None:
        document |= {
            "failed_in": outcome.failed.service,
            "reason": outcome.failed.reason,
            "detail": outcome.failed.detail,
            "attempts": outcome.failed.attempts,
            "undone": list(outcome.undone),
            "to_undo": list(outcome.to_undo),
        }
    elif isinstance(outcome.answer, Rejected):
        document |= {"reason": outcome.answer.reason, "detail": outcome.answer.detail}
    elif outcome.answer is not None:
        document["answer"] = content(outcome.answer)
    return document


def tell(asked: Asked, *, as_json: bool, content_from: str = "you") -> Exit:
    """Say what was sent and what became of it; the exit code that goes with it."""
    if as_json:
        tell_json(document(asked, content_from=content_from))
        return asked.exit
    if asked.outcome is None:
        say(f"{asked.type} {asked.command.key}: the broker has it")
        if isinstance(asked.command, Pay):
            say(f"Its outcome: {again(asked.command)}")
        return asked.exit
    # All of it together, from the command to the last word: not what came last alone.
    when = f"{asked.seconds:.2f} s in all" if asked.outcome.is_over else f"after {asked.seconds:.0f} s"
    how = when if content_from == "you" else f"{when}; asked again, with what the {content_from} keep of it"
    say(f"{asked.type} {asked.command.key}: {sentence(asked.outcome)} ({how})", style=_STYLE[asked.exit])
    return asked.exit


def tell_past(past: Past, *, as_json: bool) -> Exit:
    """Say what the history tells of a payment; the exit code that goes with it."""
    standing = past.standing()
    code = Exit.OK if standing and standing.phase is Phase.COMPLETED else Exit.NEGATIVE
    if as_json:
        tell_json(_document(past, standing))
    elif standing is None:
        say(
            f"{past.id}: nobody tells of a payment with this id. With its fields (--user, --reservation, --token, "
            "--amount) the services are asked, and would do it if they never did"
        )
    else:
        say(f"{past.id}: {_in_words(past, standing)} (by the history; nobody was asked again)", style=_STYLE[code])
    return code


def tell_booked(found: Booked, *, as_json: bool) -> Exit:
    """Say what the databases tell of a payment; the exit code that goes with it."""
    code = Exit.OK if found.phase is Phase.COMPLETED else Exit.NEGATIVE
    if as_json:
        tell_json(
            {
                "id": found.id,
                "told_by": "databases",
                "ending": found.phase.value,
                "failed_in": found.failed_in,
                "reason": found.reason,
                "detail": found.detail,
                "waits_for": list(found.waits_for),
            }
        )
        return code
    words: list[str] = [found.phase.value] if found.phase is not Phase.UNDONE else []
    if found.failed_in:
        words.append(f"failed in {found.failed_in}: {found.reason}: {found.detail}")
    elif found.phase is Phase.UNDONE:
        words.append("failed so long ago that where and why is forgotten")
    if found.phase is Phase.UNDONE:
        words.append("all that was done before is undone")
    if found.waits_for:
        words.append(f"waits for {', '.join(found.waits_for)}")
    say(f"{found.id}: {'; '.join(words)} (by the databases; nobody was asked again)", style=_STYLE[code])
    return code


def _document(past: Past, standing: Standing | None) -> dict[str, Any]:
    if standing is None:
        return {"id": past.id, "told_by": "history", "ending": None}
    return {
        "id": past.id,
        "told_by": "history",
        "ending": standing.phase.value,
        "failed_in": standing.failed_at,
        "reason": standing.reason,
        "detail": past.detail,
        "baton": standing.baton,
        "expected": [{"service": it.service, "on": it.on, "says": it.says} for it in standing.expected],
        "why_stuck": standing.why_stuck,
    }


def _in_words(past: Past, standing: Standing) -> str:
    failed = f"failed in {standing.failed_at or 'nobody tells where'}: {standing.reason or 'nobody tells why'}"
    failed += f": {past.detail}" if past.detail else ""
    match standing.phase:
        case Phase.COMPLETED:
            return "completed"
        case Phase.FAILED:
            return failed
        case Phase.UNDONE:
            return f"{failed}; all that was done before is undone"
    waits = ", ".join(it.service for it in standing.expected) or "nobody"
    stuck = f"; {standing.why_stuck}" if standing.why_stuck else ""
    return (
        f"{failed + '; ' if standing.backwards else ''}{standing.phase.value}, waits for {waits}{stuck}; "
        f"`saga show {past.id}` tells more"
    )


def sentence(outcome: Outcome) -> str:
    """What became of a command, for people."""
    match outcome.ending, outcome.answer:
        case Ending.COMPLETED, _:
            return "completed"
        case Ending.ANSWERED, Body() as answer:
            return f"answered: {_listed(content(answer))}"
        case Ending.REJECTED, Rejected(reason=reason, detail=detail):
            return f"rejected: {reason}: {detail}"
    if outcome.failed is None:
        return f"no end was heard; `saga show {outcome.id}` tells how far it came"
    failed = outcome.failed
    why = f"failed in {failed.service}: {failed.reason}: {failed.detail}"
    tried = f" (after {failed.attempts} attempts)" if failed.attempts > 1 else ""
    undone = f"; undone: {', '.join(outcome.undone)}" if outcome.undone else ""
    missing = f"; not heard to be undone: {', '.join(outcome.to_undo)}" if outcome.to_undo else ""
    return why + tried + undone + missing


def again(pay: Pay) -> str:
    """The line that asks for a payment's outcome."""
    fields = content(pay)
    options = {
        "--user": fields["user_id"],
        "--reservation": fields["reservation_id"],
        "--token": fields["token"],
        "--amount": fields["amount"],
        "--expires-at": fields.get("expires_at"),
    }
    given = " ".join(f"{name} {value}" for name, value in options.items() if value is not None)
    return f"saga outcome {pay.payment_id} {given}"


def _listed(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


_STYLE = {Exit.OK: "green", Exit.NEGATIVE: "red"}
