"""A named fake of a vendor's model: answers, delays, tool calls and faults from a script, in process or over the OpenAI wire."""
