"""The sides of a race: irconv with each of its backends, and its peers.  Each lives in a module with ``make(threads)``."""

from __future__ import annotations

from irconv.bench.sides.base import Peer

PEERS = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime", "onnx_runtime", "onnxruntime", "pip install onnxruntime", ("I/O binding",), needs_onnx=True),
        Peer("openvino", "open_vino", "openvino", "pip install openvino", ("latency, f32",), needs_onnx=True),
        Peer("mnn", "mnn", "MNN", "pip install MNN", ("high precision",), needs_onnx=True),
        Peer(
            "torch",
            "torch_eager",
            "torch",
            "pip install torch",
            (
                "contiguous",
                "channels last",
                "contiguous, frozen TorchScript with oneDNN fusion",
                "channels last, frozen TorchScript with oneDNN fusion",
            ),
            ("contiguous, foreach", "channels last, foreach", "contiguous, fused", "channels last, fused"),
        ),
        Peer(
            "torch-compile",
            "torch_compiled",
            "torch",
            "pip install torch",
            ("default, contiguous", "default, channels last", "max-autotune, contiguous"),
            ("default, contiguous", "default, channels last", "max-autotune, contiguous"),
        ),
    )
}
"""What irconv can be compared with, by the name that ``--against`` takes."""


def irconv_side(backend: str) -> Peer:
    """irconv with a backend, as a side.  ``mode`` is the backend's name."""
    return Peer(f"irconv {backend}", "own", "irconv", "", (backend,), (backend,))
