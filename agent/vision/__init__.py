"""The Vision API: everything that is known of it, and everything that is guessed, is in this package and nowhere else.

`client` has the endpoints, `bodies` what is sent, `answers`, `video_requests` and `rejections` what comes back,
`readings` and `complaints` our guesses where the reference is silent, `transport`, `connections` and `link` the way
there.
"""
