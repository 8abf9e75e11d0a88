/** Files embedded in the program: the bundled jobs, and scripts of the rescue system. */
import addSshKeysJob from "../../jobs/add-ssh-keys.job" with { type: "text" };
import addSshKeysPre from "../../jobs/add-ssh-keys.pre" with { type: "text" };
import growFsJob from "../../jobs/grow-fs.job" with { type: "text" };
import newIdentityJob from "../../jobs/new-identity.job" with { type: "text" };
import newIdentityPre from "../../jobs/new-identity.pre" with { type: "text" };
import postInstallJob from "../../jobs/post-install.job" with { type: "text" };
import postInstallPost from "../../jobs/post-install.post" with { type: "text" };
import postInstallPre from "../../jobs/post-install.pre" with { type: "text" };
import runSshJob from "../../jobs/run-ssh.job" with { type: "text" };
import runSshPre from "../../jobs/run-ssh.pre" with { type: "text" };
import askHost from "../../scripts/rescue/ask-host" with { type: "text" };
import files from "../../scripts/rescue/files.job" with { type: "text" };
import init from "../../scripts/rescue/init" with { type: "text" };
import mountFstab from "../../scripts/rescue/mount-fstab" with { type: "text" };
import mountSystem from "../../scripts/rescue/mount-system" with { type: "text" };
import prepare from "../../scripts/rescue/prepare.sh" with { type: "text" };
import runner from "../../scripts/rescue/runner" with { type: "text" };
import unpackFiles from "../../scripts/rescue/unpack-files" with { type: "text" };

/** The bundled jobs, by file name. */
export const JOB_FILES: Readonly<Record<string, string>> = {
  "add-ssh-keys.job": addSshKeysJob,
  "add-ssh-keys.pre": addSshKeysPre,
  "grow-fs.job": growFsJob,
  "new-identity.job": newIdentityJob,
  "new-identity.pre": newIdentityPre,
  "post-install.job": postInstallJob,
  "post-install.post": postInstallPost,
  "post-install.pre": postInstallPre,
  "run-ssh.job": runSshJob,
  "run-ssh.pre": runSshPre,
};

/** Script that starts a job in the rescue; `recovery/autorun` on a rescue CD. */
export const RUNNER: string = runner;

/** Scripts of a rescue built from the host, by their path in it. */
export const RESCUE_SCRIPTS: Readonly<Record<string, string>> = {
  "/init": init,
  "/usr/sbin/rescue-runner": runner,
  "/usr/lib/rescue/prepare.sh": prepare,
  "/usr/sbin/mount-system": mountSystem,
  "/usr/sbin/mount-fstab": mountFstab,
  "/usr/sbin/ask-host": askHost,
};

/** Job that reads and writes files of a guest (src/files), and the programs that it brings along: any rescue can run it. */
export const FILES_JOB: string = files;
export const FILES_PROGRAMS: Readonly<Record<string, string>> = {
  "mount-system": mountSystem,
  "mount-fstab": mountFstab,
  "ask-host": askHost,
  "unpack-files": unpackFiles,
};
