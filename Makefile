# SPDX-License-Identifier: GPL-3.0-or-later
# What can be done with this tree; `make` alone lists it. The work is in setup/.

ARGS =

help:           ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo:           ## as root: see it at work on a throwaway Debian 12; nothing but a cache stays behind
	@setup/demo

test:           ## as root: all tests, on booted Debian 12 and 13 too (ARGS="-k word" picks some)
	@setup/test tests/unit tests/integration tests/e2e $(ARGS)

test-mkl:       ## as root: every MKL release and mixture under numpy itself (3 GB and 7 minutes once, then 2)
	@AFTERCARE_MKL=full setup/test tests/integration/test_mkl_states.py $(ARGS)

test-unit:      ## the tests that take seconds and touch nothing
	@setup/test tests/unit $(ARGS)

bench:          ## as root: speed and precision beside needrestart and checkrestart, on a throwaway Debian 12
	@tests/bench/run

deb:            ## build the Debian package into build/
	@setup/deb

install:        ## as root: build, install with apt, start, show the status
	@setup/install

uninstall:      ## as root: purge the package and all that it remembered
	apt-get -y purge aftercare

lint:           ## mypy, shellcheck, systemd-analyze and lintian, where they are installed
	@setup/lint

clean:          ## remove what was built here
	rm -rf build
	find . -name __pycache__ -prune -exec rm -rf {} +

clean-cache:    ## as root: remove what demo and test keep in /var/cache
	rm -rf "$${AFTERCARE_CACHE:-/var/cache/aftercare-tests}"

.PHONY: help demo test test-mkl test-unit bench deb install uninstall lint clean clean-cache
