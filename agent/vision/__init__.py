"""The Vision API: everything known about it, and everything assumed, is in this package and nowhere else.

`client` has the endpoints, `bodies` what is sent, `responses` and `error_mapping` what comes back, `assumptions` our
guesses where the reference is silent, `transport` and `connection` the HTTP below.
"""
