"""Options that several rooms share."""

from __future__ import annotations

from typing import Annotated

import typer

#: In a container everybody has the same login name: SAGA_BY tells who sits there.
By = Annotated[
    str | None,
    typer.Option("--by", envvar="SAGA_BY", show_envvar=True, help="Who does it; by default the login name."),
]
