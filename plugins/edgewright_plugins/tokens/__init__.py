"""What methods that leave out tokens share: where tokens become fewer, which networks take fewer, what it costs."""
