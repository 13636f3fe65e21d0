"""The benchmark: how long draws take, beside every peer and the machine's limit.

Run from the checkout: ``python -m bench [suite ...] [--json FILE] [--quick]``.

A case is one draw: an initializer, a shape, a dtype. Its contenders are ours, the same
law from each peer that is installed, and the limit: what the machine needs for the
least work that the draw could be. A case is verified, then all contenders race under
one clock, and a row says what came of it. Rows go to tables, JSON and plots.
"""
