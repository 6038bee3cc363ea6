/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A herd of processes that map real libraries, for the bench. It touches next to nothing of what it maps: ten thousand
 * of them need a few gigabytes, most of that the kernel's own.
 *
 *   herd PLAN READY      PLAN: lines of `NAME ROLE PROGRAM LIBRARIES TIMES`. Each time is a process of its own program
 *                        and a fork of it, both called NAME; LIBRARIES is a file with one path a line. Once all are
 *                        there the file READY is made, and all of them wait to be killed.
 *
 * Roles: plain · private (its own mount namespace) · guest (its own mount and, for the fork, pid namespace, with a root
 * of its own at /srv/guest) · large (5,000 mappings more, 500 of them code) · memfd, jit, named, tmp, home, var (maps
 * as code what only looks replaced).
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL
#define MOST_SEGMENTS 32
#define REPORT 20
#define EVERY 10

static const char *named[] = {"/opt/libc.so.6 (deleted)", "/usr/lib/x86_64-linux-gnu/libc.so.6 (deleted)"};

static void need(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static int protection(const Elf64_Phdr *segment)
{
    return (segment->p_flags & PF_R ? PROT_READ : 0) | (segment->p_flags & PF_W ? PROT_WRITE : 0) |
           (segment->p_flags & PF_X ? PROT_EXEC : 0);
}

/* As ld.so maps a library: one row for each segment, one for what is read-only after relocation, one for bss. */
static void map_library(const char *path)
{
    Elf64_Ehdr header;
    Elf64_Phdr segments[MOST_SEGMENTS];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    need(fd >= 0 && read(fd, &header, sizeof header) == sizeof header && header.e_phnum <= MOST_SEGMENTS, path);
    ssize_t size = header.e_phnum * sizeof *segments;
    need(pread(fd, segments, size, header.e_phoff) == size, path);
    unsigned long end = 0;
    for (int i = 0; i < header.e_phnum; i++)
        if (segments[i].p_type == PT_LOAD)
            end = segments[i].p_vaddr + segments[i].p_memsz;
    char *base = mmap(NULL, end + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(base != MAP_FAILED, path);
    for (int i = 0; i < header.e_phnum; i++) {
        const Elf64_Phdr *segment = &segments[i];
        unsigned long from = segment->p_vaddr & -PAGE, slack = segment->p_vaddr - from;
        if (segment->p_type == PT_LOAD) {
            need(mmap(base + from, segment->p_filesz + slack, protection(segment), MAP_PRIVATE | MAP_FIXED, fd,
                      segment->p_offset - slack) != MAP_FAILED, path);
            unsigned long filled = (segment->p_vaddr + segment->p_filesz + PAGE - 1) & -PAGE;
            if (segment->p_vaddr + segment->p_memsz > filled)
                need(mmap(base + filled, segment->p_vaddr + segment->p_memsz - filled, protection(segment),
                          MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, path);
        } else if (segment->p_type == PT_GNU_RELRO && segment->p_memsz + slack >= PAGE) {
            need(mprotect(base + from, (segment->p_memsz + slack) & -PAGE, PROT_READ) == 0, path);
        }
    }
    close(fd);
}

static void map_code(int fd, int sharing)
{
    need(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, sharing, fd, 0) != MAP_FAILED, "mmap");
}

static void map_deleted(const char *directory)
{
    char path[64];
    snprintf(path, sizeof path, "/%.8s/libjit-%d.so.1", directory, getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0700);
    need(fd >= 0 && ftruncate(fd, PAGE) == 0, path);
    map_code(fd, MAP_PRIVATE);
    need(unlink(path) == 0, path);
}

static void map_many(const char *program)
{
    int fd = open(program, O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 5000; i++)
        need(mmap(NULL, PAGE, i % EVERY ? PROT_READ : PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED, program);
}

static void play(const char *role, const char *program)
{
    if (!strcmp(role, "private")) {
        need(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
             mount("tmpfs", "/tmp", "tmpfs", 0, "size=64k") == 0, role);
    } else if (!strcmp(role, "large")) {
        map_many(program);
    } else if (!strcmp(role, "memfd")) {
        int fd = memfd_create("jit", MFD_CLOEXEC);
        need(fd >= 0 && ftruncate(fd, PAGE) == 0, role);
        map_code(fd, MAP_SHARED);
    } else if (!strcmp(role, "jit")) {
        for (int sharing = MAP_SHARED; sharing <= MAP_PRIVATE; sharing++)
            need(mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, sharing | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, role);
    } else if (!strcmp(role, "named")) {
        for (unsigned i = 0; i < sizeof named / sizeof *named; i++)
            map_code(open(named[i], O_RDONLY | O_CLOEXEC), MAP_PRIVATE);
    } else if (!strcmp(role, "tmp") || !strcmp(role, "home") || !strcmp(role, "var")) {
        map_deleted(role);
    }
}

/* Become a process of the guest: nothing of the host's files is left in sight. */
static void enter_guest(char **words)
{
    need(unshare(CLONE_NEWNS | CLONE_NEWPID) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
         mount("/srv/guest", "/srv/guest", NULL, MS_BIND, NULL) == 0 && chdir("/srv/guest") == 0 &&
         syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 && chdir("/") == 0, "guest");
    words[2] = "inside";
    execv(words[3], words);
    need(0, words[3]);
}

/* words: herd NAME ROLE PROGRAM LIBRARIES */
static _Noreturn void join(char **words)
{
    char path[PATH_MAX];
    if (!strcmp(words[2], "guest"))
        enter_guest(words);
    FILE *libraries = fopen(words[4], "re");
    need(libraries != NULL, words[4]);
    while (fgets(path, sizeof path, libraries)) {
        path[strcspn(path, "\n")] = 0;
        map_library(path);
    }
    fclose(libraries);
    play(words[2], words[3]);
    prctl(PR_SET_NAME, words[1]);
    need(fork() >= 0 && write(REPORT, ".", 1) == 1 && close(REPORT) == 0, "fork");
    for (;;)
        pause();
}

static void spawn(char **words)
{
    pid_t pid = fork();
    need(pid >= 0, "fork");
    if (pid == 0) {
        execv(words[3], words);
        need(0, words[3]);
    }
}

int main(int count, char **words)
{
    char name[16], role[16], program[PATH_MAX], libraries[PATH_MAX], reports[4096];
    int ends[2], times, wanted = 0;
    if (count == 5)
        join(words);
    FILE *plan = count == 3 ? fopen(words[1], "re") : NULL;
    need(plan != NULL && pipe2(ends, O_CLOEXEC) == 0 && dup2(ends[1], REPORT) == REPORT, "plan");
    while (fscanf(plan, "%15s %15s %4095s %4095s %d", name, role, program, libraries, &times) == 5) {
        char *member[] = {"herd", name, role, program, libraries, NULL};
        for (; times > 0; times--, wanted += 2)
            spawn(member);
    }
    close(REPORT);
    close(ends[1]);
    for (ssize_t got; wanted > 0; wanted -= got)
        need((got = read(ends[0], reports, sizeof reports)) > 0, "a process of the herd died");
    need(creat(words[2], 0644) >= 0, words[2]);
    for (;;)
        pause();
}
