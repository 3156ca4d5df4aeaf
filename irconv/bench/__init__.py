"""irconv beside other programs on the same network: each in a process of its own, taking turns.

``task``: what is run; ``material``: inputs, weights and the ONNX file that all sides share; ``sides``: irconv and its peers;
``worker``: the process of one side; ``process``: that process seen from outside; ``race``: modes, comparison, turns.
"""
