"""The only door to a language model's text: one protocol, one client, one cache. Never imports torch."""
