"""The benchmark: how long draws take, beside every peer and the machine's limit.

Run from the checkout: ``python -m bench [suite ...] [--json FILE] [--quick]``.

A suite asks one question about its cases; most cases are one draw: an initializer, a
shape, a dtype. Its contenders are our draw, the same law (distribution) from each peer
that is installed, and the limit: the least work that the draw could take. A case is
verified, then all contenders race under one clock, and a row records the results. Rows
go to tables, JSON and plots. The rooms, in the order in which a case passes them:

- ``__main__``: the command;
- ``suites/``: a file for each, with its question, its cases, their measurement;
- ``weight/``: one draw: its verification, its peers, its limit, its measurement;
- ``meters/``: the clock, the memory, and the row that they fill;
- ``child``: a case in a process of its own, where its memory is measured;
- ``show/``: rows as tables, JSON and plots;
- ``models/``: models that people initialize, and ``plan_fill``, a plan of a large one;
- ``claims/``: apart from all this, claims of papers that are tried.
"""
