"""Tools: the Toolset Protocol (`protocol`), Python functions as tools (`python`), the gate before each call, built-in tools."""
