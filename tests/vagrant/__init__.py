"""The whole way through Vagrant, without KVM and without a download: box, up, the tests, destroy."""
