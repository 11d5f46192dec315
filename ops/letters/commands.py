"""`saga dead` and `saga parked`: the same four commands over a service's dead, or parked, letters."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ops.options import By
from ops.output import Exit

_Id = Annotated[str, typer.Argument(metavar="ID", help="The letter's id, the beginning of it, or its saga's id.")]
_MaybeId = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="The letter's id, the beginning of it, or its saga's id."),
]
_Service = Annotated[str | None, typer.Option("--service", "-s", help="Only this service's letters.")]
_Reason = Annotated[str | None, typer.Option("--reason", "-r", help="Only letters with this reason.")]
_Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Most letters to look at in each queue.")]
_Each = Annotated[bool, typer.Option("--each", help="One line a letter instead of counts.")]
_Reveal = Annotated[
    bool,
    typer.Option("--reveal", help="Show what is about a person, too; say why with --why. It is put on record."),
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it; without this, only tell what would happen.")]
_Force = Annotated[bool, typer.Option("--force", help="Also replay what is settled, or what nobody knows about.")]
_Unrecorded = Annotated[
    bool,
    typer.Option("--unrecorded", help="Also where the history cannot keep who did it; say why with --why."),
]
_Why = Annotated[str, typer.Option("--why", help="Why; it is kept in the history.")]

_WHAT = {
    "parked": "What only a person can decide: unreadable, in conflict, or against the protocol.",
    "dead": "Terminal failures on the way to their service's decision; a service that runs takes them at once.",
}
_LOOKING = (
    "Looking takes nothing away. Each letter that is looked at counts one delivery more, of a billion; the order "
    "stays unless --limit cuts the look short."
)


def _group(kind: str) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=f"{_WHAT[kind]} List, show, replay, discard.")

    @group.command(name="list", epilog=_LOOKING)
    def list_(
        *,
        service: _Service = None,
        reason: _Reason = None,
        limit: _Limit = 1000,
        each: _Each = False,
        json: _Json = False,
    ) -> Exit:
        """List letters by service and reason, with counts and the oldest."""
        # Here, so that `--help` answers at once.
        from ops.letters import looking  # noqa: PLC0415
        from ops.letters.letter import Kind  # noqa: PLC0415

        return asyncio.run(
            looking.list_(
                Kind(kind),
                looking.services_of(service),
                reason=reason,
                limit=limit,
                each=each,
                as_json=json,
            )
        )

    @group.command(epilog=_LOOKING)
    def show(
        name: _Id,
        *,
        service: _Service = None,
        reveal: _Reveal = False,
        why: _Why = "",
        by: By = None,
        unrecorded: _Unrecorded = False,
        limit: _Limit = 1000,
        json: _Json = False,
    ) -> Exit:
        """Show a letter: its body decoded, what is written on it explained.

        What is about a person is masked: the same value by the same mask, until the next look. --reveal shows it,
        and the history keeps who saw it, and why.
        """
        from ops import where  # noqa: PLC0415
        from ops.letters import looking  # noqa: PLC0415
        from ops.letters.letter import Kind  # noqa: PLC0415
        from ops.recording import Signature  # noqa: PLC0415

        if reveal and not why.strip():
            raise typer.BadParameter("--reveal: say why with --why")
        signature = Signature(by or where.login_name(), why)
        return asyncio.run(
            looking.show(
                Kind(kind),
                looking.services_of(service),
                name,
                reveal=looking.Reveal(signature, unrecorded) if reveal else None,
                limit=limit,
                as_json=json,
            )
        )

    @group.command(epilog="Exit code 1: at least one was refused, or there is none.")
    def replay(
        name: _MaybeId = None,
        *,
        reason: _Reason = None,
        service: _Service = None,
        yes: _Yes = False,
        force: _Force = False,
        why: _Why = "",
        by: By = None,
        unrecorded: _Unrecorded = False,
        limit: _Limit = 1000,
        json: _Json = False,
    ) -> Exit:
        """Send letters back to their service; without --yes, tell what would become of each.

        What is settled is refused, and what the service could not read either. The broker itself gives the letter
        back, so whatever breaks on the way, it is in one place or the other. Who did it, and why, is put on record
        in the history first; what cannot be recorded is not done.
        """
        from ops import where  # noqa: PLC0415
        from ops.letters import looking, orders  # noqa: PLC0415
        from ops.letters.letter import Kind, Letter  # noqa: PLC0415
        from ops.letters.record import Act  # noqa: PLC0415
        from ops.recording import Signature  # noqa: PLC0415

        if name is None and reason is None:
            raise typer.BadParameter("name a letter, or a reason with --reason")
        if unrecorded and not why.strip():
            raise typer.BadParameter("--unrecorded: say why with --why")

        def wanted(letter: Letter) -> bool:
            return (name is None or letter.answers_to(name)) and reason in {None, letter.reason}

        order = orders.Order(
            act=Act.REPLAY,
            kind=Kind(kind),
            services=looking.services_of(service),
            wanted=wanted,
            signature=Signature(by or where.login_name(), why),
            limit=limit,
            really=yes,
            force=force,
            unrecorded=unrecorded,
        )
        return asyncio.run(orders.act(order, as_json=json))

    @group.command(epilog="Exit code 1: it was refused, or there is none.")
    def discard(
        name: _Id,
        *,
        why: _Why,
        service: _Service = None,
        yes: _Yes = False,
        by: By = None,
        limit: _Limit = 1000,
        json: _Json = False,
    ) -> Exit:
        """Take a letter away for good; without --yes, tell whether that may be.

        Never one for which its saga waits: that would tear it. What is discarded is kept in the history, whole up
        to 64 KiB, with who did it and why.
        """
        from ops import where  # noqa: PLC0415
        from ops.letters import looking, orders  # noqa: PLC0415
        from ops.letters.letter import Kind  # noqa: PLC0415
        from ops.letters.record import Act  # noqa: PLC0415
        from ops.recording import Signature  # noqa: PLC0415

        if not why.strip():
            raise typer.BadParameter("say why with --why")
        order = orders.Order(
            act=Act.DISCARD,
            kind=Kind(kind),
            services=looking.services_of(service),
            wanted=lambda letter: letter.answers_to(name),
            signature=Signature(by or where.login_name(), why),
            limit=limit,
            really=yes,
        )
        return asyncio.run(orders.act(order, as_json=json))

    return group


dead = _group("dead")
parked = _group("parked")
