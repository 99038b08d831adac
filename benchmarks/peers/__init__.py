"""What others offer for the same job; needs the extra `bench`."""
