"""Servers to measure inferd beside. One file each; what runs inside them is in `inside`."""

from __future__ import annotations

from bench.peers.grpc_aio import GrpcAio
from bench.peers.grpc_cpp import GrpcCpp
from bench.peers.inferd_server import Inferd, transports
from bench.peers.kserve import KServe
from bench.peers.mlserver import MLServer
from bench.peers.nghttpd import Nghttpd
from bench.peers.peer import Absent, Peer
from bench.peers.triton import Triton

__all__ = ["Absent", "Peer", "known"]


def known() -> dict[str, tuple[Peer, ...]]:
    """All peers by the name that selects them, floors first; `inferd` selects each of its transports."""
    single: tuple[Peer, ...] = (Nghttpd(), GrpcCpp(), GrpcAio())
    servers: tuple[Peer, ...] = (Triton(), KServe(), MLServer())
    inferds: tuple[Peer, ...] = tuple(Inferd(transport) for transport in transports())
    return {peer.name: (peer,) for peer in single} | {"inferd": inferds} | {peer.name: (peer,) for peer in servers}
