"""The Vision API: everything known about it, and everything assumed, is in this package and nowhere else.

`client` has the endpoints, `bodies` what is sent, `responses`, `video_requests` and `error_mapping` what comes back,
`assumptions` and `error_classes` our guesses where the reference is silent, `transport`, `connection` and
`stall_guard` the HTTP below.
"""
