"""Model providers: one Protocol (`protocol`), one module per vendor, and `scripted`, the fake for demos and tests."""
