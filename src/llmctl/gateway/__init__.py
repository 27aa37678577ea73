"""The data plane: an OpenAI-compatible gateway, a program of its own (``python -m llmctl.gateway``).

``server`` starts and stops it, ``public`` answers clients, ``admin`` answers llmctl on a unix socket.
``state`` holds the one immutable snapshot that is served, ``checks`` says whether a configuration can
be served, ``routing`` chooses a revision, ``chat`` makes the upstream's request of a client's,
``upstream`` talks to upstreams, ``sse`` rewrites streams, ``stats`` and ``metrics`` count.
"""
