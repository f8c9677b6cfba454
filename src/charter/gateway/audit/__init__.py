"""The audit log: every verdict with what was done about it, kept in a database without ever holding up a stream."""
