"""The gateway of Cinnabar: the public API, and the only place that decides who may do what."""
