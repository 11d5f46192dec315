"""Other ways to write the same saga, each as its own documentation recommends; README.md compares them."""

from collections.abc import Mapping

from benchmarks.contender import Factory
from benchmarks.peers.celery_peer import CeleryPeer
from benchmarks.peers.dbos_peer import DbosPeer
from benchmarks.peers.faststream_peer import FastStreamPeer
from benchmarks.peers.programs import INSTALLED

#: By name; none where `make peers` has not been through.
CONTENDERS: Mapping[str, Factory] = (
    {"faststream": FastStreamPeer, "celery": CeleryPeer, "dbos": DbosPeer} if INSTALLED.exists() else {}
)
