import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { lstatSync } from "node:fs";
import { Guest } from "./guest.ts";

// Namespaces and many processes are slow on a busy machine.
setDefaultTimeout(30_000);

const asRoot = describe.skipIf(process.getuid!() !== 0);

asRoot("the runner (needs root)", () => {
  test.each<[string, number]>([
    [":", 0],
    ["false", 1],
    ["exit 2", 2],
    ["exit 42", 42],
    ["exit 255", 255],
    ["return 7", 7],
    ["fatal 'no way'", 1],
    ["run false", 1],
    ["kill -TERM $$", 143],
    ["kill -KILL $$", 137],
    ["nosuch-program", 127],
    ['echo "$NOSUCH"', 1],
    ["if", 2],
    ["rm -rf /tmp/.out/job.log; mkdir /tmp/.out/STATUS; ln -s /etc/passwd /tmp/.out/FINISHED; exit 5", 5],
  ])("%j gives %d", async (job, status) => {
    using guest = new Guest({ "in/job.sh": job });
    await guest.run();
    expect(guest.read("out/STATUS")).toBe(`${status}\n`);
    expect(guest.read("out/FINISHED")).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n$/);
    expect(lstatSync(guest.temp.path("out/FINISHED")).isFile()).toBe(true);
    expect([guest.read("synced"), guest.read("poweroff")]).toEqual(["flushed\n", "-f\n"]);
  });

  test("provides a job's environment", async () => {
    using guest = new Guest({
      "mirror/x": "",
      "in/job.sh": `a=(1 2); echo "$MIRROR $INDIR $OUTDIR $PWD \${#a[@]} $MNTOPTS"; echo *
run echo one two; cat; sh -c 'echo "$OUTDIR"'; echo no end >&2; printf end`,
    });
    await guest.run();
    expect(guest.read("out/job.log")).toBe(`/tmp/.mirror /tmp/.in /tmp/.out /tmp/.in 2 \
trans=virtio,version=9p2000.L,msize=104857600,cache=none
*
exec: echo one two
one two
/tmp/.out
no end
end`);
  });

  test("DEBUG traces, and without a mirror MIRROR is empty", async () => {
    using guest = new Guest({ "in/DEBUG": "", "in/job.sh": 'echo "[$MIRROR]"' });
    await guest.run();
    expect(guest.read("out/job.log")).toContain("+ echo '[]'\n[]\n");
  });

  test("unmounts everything that the job mounted, even if busy; a daemon does not delay it", async () => {
    using guest = new Guest({
      "in/job.sh": `mkdir -p "/mnt/s/a b" /tmp/else; mount -t tmpfs x /mnt/s; mkdir "/mnt/s/a b"
mount -t tmpfs x "/mnt/s/a b"; mount -t tmpfs x /tmp/else
(cd "/mnt/s/a b"; exec setsid sleep 600) &
(trap '' TERM; cd /tmp/else; while :; do sleep 600; done) &
echo started; exit 3`,
    });
    await guest.run();
    expect(guest.read("out/STATUS")).toBe("3\n");
    expect(guest.read("out/job.log")).toBe("started\n");
    expect(guest.read("mounts")).not.toMatch(/ \/mnt\/s[ \\]| \/tmp\/else /);
    expect(guest.read("mounts")).toContain(" /mnt/bench ");
  });

  test("a signal to the runner ends the job, and clean-up follows", async () => {
    using guest = new Guest({
      "in/job.sh": `trap 'echo ending; exit 9' TERM; (sleep 0.2; kill -TERM $PPID) & while :; do sleep 0.1; done`,
    });
    await guest.run();
    expect(guest.read("out/job.log")).toBe("ending\n");
    expect(guest.read("out/STATUS")).toBe("9\n");
  });

  test("delivers 200000 lines", async () => {
    using guest = new Guest({ "in/job.sh": "seq 200000" });
    await guest.run();
    expect(guest.read("out/job.log")!.split("\n").length).toBe(200_001);
  });

  test("writes no status without a job", async () => {
    using guest = new Guest({});
    expect(await guest.run()).toContain("rescue: the share 'in' has no job.sh");
    expect(guest.read("out/STATUS")).toBeUndefined();
    expect(guest.read("out/job.log")).toContain("no job.sh");
    expect(guest.read("poweroff")).toBe("-f\n");
  });
});
