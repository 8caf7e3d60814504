"""The store: Protocols (`protocols`), the rows of resources (`model`), group commit (`writer`), and two backends behind them.

Only `cli` and tests may import `talon.store.sqlite` or `talon.store.postgres`. Every backend passes the whole suite of
`talon.store.conformance`.
"""
