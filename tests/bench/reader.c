/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The floor for a scan, for the bench: goes over the mappings of all processes in the leanest way and does nothing with
 * them. `reader text` reads every maps file; `reader query` asks the ioctl PROCMAP_QUERY (Linux 6.11) for one executable
 * file mapping after the other. Prints how many bytes or mappings there were.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct question {
    uint64_t size, flags, address;
    uint64_t start, end, vma_flags, page_size, offset, inode;
    uint32_t major, minor, name_size, build_id_size;
    uint64_t name, build_id;
};
#define QUERY _IOWR('f', 17, struct question)
#define EXECUTABLE_FILE_FROM_HERE (0x04 | 0x20 | 0x10)

static char text[64 << 10];

static long read_text(int maps)
{
    long bytes = 0;
    for (ssize_t got; (got = read(maps, text, sizeof text)) > 0;)
        bytes += got;
    return bytes;
}

static long query(int maps)
{
    struct question question = {.size = sizeof question, .flags = EXECUTABLE_FILE_FROM_HERE};
    long mappings = 0;
    for (; ioctl(maps, QUERY, &question) == 0; question.address = question.end)
        mappings++;
    return errno == ENOENT || errno == ESRCH ? mappings : -1;
}

int main(int count, char **words)
{
    int ask = count == 2 && !strcmp(words[1], "query");
    DIR *processes = opendir("/proc");
    long sum = 0;
    for (struct dirent *entry; processes && (entry = readdir(processes));) {
        char path[300];
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%s/maps", entry->d_name);
        int maps = open(path, O_RDONLY | O_CLOEXEC);
        if (maps < 0)
            continue;
        long some = ask ? query(maps) : read_text(maps);
        close(maps);
        if (some < 0)
            return 3;
        sum += some;
    }
    printf("%ld\n", sum);
    return 0;
}
