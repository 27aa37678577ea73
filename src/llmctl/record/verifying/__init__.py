"""What ``verify`` is made of, a module a subject.

``stream`` reads objects and differences in bulk, ``chain`` makes the history of them, ``files`` checks what lies in
the record, ``entries`` the entries and their attempts, ``decided`` approvals, break-glass and promotion, and
``signing`` who signed it.
"""
