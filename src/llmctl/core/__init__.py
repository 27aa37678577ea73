"""The words that every other room uses: addresses, revisions, steps, errors, protocols.

Nothing here reads a file, opens a socket or knows how anything is done.
"""
