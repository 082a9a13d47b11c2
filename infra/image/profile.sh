# Sourced by every login shell, as /etc/profile.d/smoothcert.sh: Debian's /etc/profile throws away the PATH that the
# image sets. The Ray cluster launcher runs all of its commands in login shells, KubeRay where ENABLE_LOGIN_SHELL is set.
PATH="/opt/smoothcert/bin:$PATH"
export PATH
