"""One module per outside thing; in-memory stand-ins that keep the same promises."""
