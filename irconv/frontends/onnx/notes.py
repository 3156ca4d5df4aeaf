"""What exporters note on the nodes of a file: where in a program they come from."""

from __future__ import annotations

from onnx import NodeProto

from irconv.places import Location


def noted(proto: NodeProto, key: str) -> str:
    """What a node's metadata say; "" where they say nothing."""
    return next((str(entry.value) for entry in proto.metadata_props if entry.key == key), "")


def written_in(proto: NodeProto) -> Location | None:
    """The innermost line of the user's program that PyTorch's exporter or irconv's noted; None without a note."""
    if noted(proto, "irconv.op"):
        file, _, number = proto.doc_string.rpartition(":")
        return _line(file, number)
    places = []
    for line in reversed(noted(proto, "pkg.torch.onnx.stack_trace").splitlines()):
        file, _, rest = line.strip().removeprefix('File "').partition('", line ')
        places.append(_line(file, rest.split(",")[0]))
    known = [place for place in places if place is not None]
    own = [place for place in known if "site-packages" not in place.file]
    return next(iter(own or known), None)


def _line(file: str, number: str) -> Location | None:
    return Location(file, int(number)) if number.isascii() and number.isdecimal() and len(number) < 10 else None
