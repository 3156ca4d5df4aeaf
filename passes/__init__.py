"""Passes: graph in, graph out, one file each.  Importing this package registers all of them by name."""

from irconv.passes import cse, dce, fold_batch_norm, fold_constants, materialise, simplify

__all__ = ["cse", "dce", "fold_batch_norm", "fold_constants", "materialise", "simplify"]
