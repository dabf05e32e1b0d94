// SPDX-License-Identifier: Apache-2.0

package owner

//go:generate go tool bpf2go -go-package owner -target bpfel -cc clang -strip llvm-strip -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type owner -type connection -type listener sockets ../../bpf/owner.bpf.c -- -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
